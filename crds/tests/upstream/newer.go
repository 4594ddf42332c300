package main

import (
	"github.com/dapr/dapr/pkg/apis/common"
	configurations "github.com/dapr/dapr/pkg/apis/configuration/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What the release in go.mod does not have yet: metrics of workflows, and what rules of a WorkflowAccessPolicy require.
// Only these are written anew here; everything else is upstream's.

type configuration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              configurationSpec `json:"spec,omitempty"`
}

type configurationSpec struct {
	AppHTTPPipeline *configurations.PipelineSpec       `json:"appHttpPipeline,omitempty"`
	HTTPPipeline    *configurations.PipelineSpec       `json:"httpPipeline,omitempty"`
	Tracing         *configurations.TracingSpec        `json:"tracing,omitempty"`
	Metric          *metrics                           `json:"metric,omitempty"`
	Metrics         *metrics                           `json:"metrics,omitempty"`
	MTLS            *configurations.MTLSSpec           `json:"mtls,omitempty"`
	Secrets         *configurations.SecretsSpec        `json:"secrets,omitempty"`
	AccessControl   *configurations.AccessControlSpec  `json:"accessControl,omitempty"`
	NameResolution  *configurations.NameResolutionSpec `json:"nameResolution,omitempty"`
	Features        []configurations.FeatureSpec       `json:"features,omitempty"`
	API             *configurations.APISpec            `json:"api,omitempty"`
	Components      *configurations.ComponentsSpec     `json:"components,omitempty"`
	Logging         *configurations.LoggingSpec        `json:"logging,omitempty"`
	Wasm            *configurations.WasmSpec           `json:"wasm,omitempty"`
	Workflow        *configurations.WorkflowSpec       `json:"workflow,omitempty"`
}

type metrics struct {
	configurations.MetricSpec `json:",inline"`
	Workflow                  *workflowMetrics `json:"workflow,omitempty"`
}

type workflowMetrics struct {
	LatencyDistributionBuckets *[]int           `json:"latencyDistributionBuckets,omitempty"`
	LatencyDistributionUnits   *metav1.Duration `json:"latencyDistributionUnits,omitempty"`
}

type workflowAccessPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              workflowAccessPolicySpec `json:"spec,omitempty"`
	common.Scoped     `json:",inline"`
}

type workflowAccessPolicySpec struct {
	Rules []rule `json:"rules,omitempty"`
}

type rule struct {
	Callers    []caller       `json:"callers"`
	Workflows  []workflowRule `json:"workflows,omitempty"`
	Activities []activityRule `json:"activities,omitempty"`
}

type caller struct {
	AppID string `json:"appID"`
}

type workflowRule struct {
	Name       string        `json:"name"`
	Operations []string      `json:"operations"`
	Requires   []requirement `json:"requires,omitempty"`
}

type activityRule struct {
	Name     string        `json:"name"`
	Requires []requirement `json:"requires,omitempty"`
}

type requirement struct {
	EventType string `json:"eventType"`
	Name      string `json:"name"`
	AppID     string `json:"appID"`
}
