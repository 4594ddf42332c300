// Upstream's own types and Go's own encoder, as the judge of what our encoder writes: reads objects as an API server
// returns them, one a line, and writes what upstream's operator would send for each, without what every server sets
// differently.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	components "github.com/dapr/dapr/pkg/apis/components/v1alpha1"
	httpendpoints "github.com/dapr/dapr/pkg/apis/httpEndpoint/v1alpha1"
	mcpservers "github.com/dapr/dapr/pkg/apis/mcpserver/v1alpha1"
	resiliencies "github.com/dapr/dapr/pkg/apis/resiliency/v1alpha1"
	subscriptions1 "github.com/dapr/dapr/pkg/apis/subscriptions/v1alpha1"
	subscriptions2 "github.com/dapr/dapr/pkg/apis/subscriptions/v2alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8sjson "sigs.k8s.io/json"
)

func main() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 16<<20)
	out := bufio.NewWriter(os.Stdout)
	for in.Scan() {
		sent, err := send(in.Bytes())
		if err != nil {
			fmt.Fprintf(os.Stderr, "%v in %s\n", err, in.Bytes())
			os.Exit(1)
		}
		out.Write(append(sent, '\n'))
	}
	if err := in.Err(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := out.Flush(); err != nil {
		os.Exit(1)
	}
}

func send(object []byte) ([]byte, error) {
	var types metav1.TypeMeta
	if err := json.Unmarshal(object, &types); err != nil {
		return nil, err
	}
	typed, err := newObject(types)
	if err != nil {
		return nil, err
	}
	// Kubernetes' own decoder, as upstream's client uses it.
	if err := k8sjson.UnmarshalCaseSensitivePreserveInts(object, typed); err != nil {
		return nil, err
	}
	typed.SetNamespace("shop")
	typed.SetUID("")
	typed.SetResourceVersion("")
	typed.SetGeneration(0)
	typed.SetCreationTimestamp(metav1.Time{})
	typed.SetManagedFields(nil)
	return json.Marshal(typed)
}

func newObject(types metav1.TypeMeta) (metav1.Object, error) {
	switch types.APIVersion + " " + types.Kind {
	case "dapr.io/v1alpha1 Component":
		return &components.Component{}, nil
	case "dapr.io/v1alpha1 Configuration":
		return &configuration{}, nil
	case "dapr.io/v1alpha1 HTTPEndpoint":
		return &httpendpoints.HTTPEndpoint{}, nil
	case "dapr.io/v1alpha1 MCPServer":
		return &mcpservers.MCPServer{}, nil
	case "dapr.io/v1alpha1 Resiliency":
		return &resiliencies.Resiliency{}, nil
	case "dapr.io/v1alpha1 Subscription":
		return &subscriptions1.Subscription{}, nil
	case "dapr.io/v2alpha1 Subscription":
		return &subscriptions2.Subscription{}, nil
	case "dapr.io/v1alpha1 WorkflowAccessPolicy":
		return &workflowAccessPolicy{}, nil
	}
	return nil, fmt.Errorf("unexpected %s %s", types.APIVersion, types.Kind)
}
