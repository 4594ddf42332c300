{{/*
What every object has: labels, annotations, texts made from values.

Maps and lists are built as data and printed with toYaml, so that a value such as the tag 1.16 or a quote in a text
cannot change its type or break the manifest.
*/}}

{{/* Scalar to text. Values files turn numbers into floats; JSON prints 1000000 as such, Go as 1e+06. */}}
{{- define "dapr.text" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end -}}

{{/* Labels: {ctx, app?, extra?}. */}}
{{- define "dapr.labels" -}}
{{- $ctx := .ctx -}}
{{- $labels := dict -}}
{{- range $key, $template := $ctx.Values.global.k8sLabels -}}
{{- $_ := set $labels $key (tpl (include "dapr.text" $template) $ctx) -}}
{{- end -}}
{{- range $key, $value := .extra -}}
{{- $_ := set $labels $key (include "dapr.text" $value) -}}
{{- end -}}
{{- with .app -}}
{{- $_ := set $labels "app" . -}}
{{- end -}}
{{- toYaml $labels -}}
{{- end -}}

{{/* Where Prometheus finds the metrics, as data. */}}
{{- define "dapr.prometheusAnnotations" -}}
{{- $annotations := dict -}}
{{- if .Values.global.prometheus.enabled -}}
{{- $_ := set $annotations "prometheus.io/scrape" "true" -}}
{{- $_ := set $annotations "prometheus.io/port" (include "dapr.text" .Values.global.prometheus.port) -}}
{{- $_ := set $annotations "prometheus.io/path" "/" -}}
{{- end -}}
{{- toYaml $annotations -}}
{{- end -}}

{{/* Annotations given by values: the member `annotations`, or nothing when there are none. */}}
{{- define "dapr.annotations" -}}
{{- $annotations := dict -}}
{{- range $key, $value := . -}}
{{- $_ := set $annotations $key (include "dapr.text" $value) -}}
{{- end -}}
{{- with $annotations -}}
{{- toYaml (dict "annotations" .) -}}
{{- end -}}
{{- end -}}

{{/* Annotations of a Service that has a metrics port: {ctx, annotations}. */}}
{{- define "dapr.serviceAnnotations" -}}
{{- include "dapr.annotations" (merge (dict) (.annotations | default dict) (include "dapr.prometheusAnnotations" .ctx | fromYaml)) -}}
{{- end -}}

{{/* Image: {ctx, name}. A name with a slash is complete, with its registry and tag. */}}
{{- define "dapr.image" -}}
{{- $global := .ctx.Values.global -}}
{{- if contains "/" .name -}}
{{- .name -}}
{{- else -}}
{{- printf "%s/%s:%s" $global.registry .name (include "dapr.text" $global.tag) -}}
{{- end -}}
{{- end -}}

{{- define "dapr.sentryAddress" -}}
{{- .Values.global.mtls.sentryAddress | default (printf "dapr-sentry.%s.svc.cluster.local:443" .Release.Namespace) -}}
{{- end -}}

{{/* Replicas of operator, sentry and injector. */}}
{{- define "dapr.replicas" -}}
{{- if .Values.global.ha.enabled }}{{ int64 .Values.global.ha.replicaCount }}{{ else }}{{ int64 .Values.replicaCount }}{{ end -}}
{{- end -}}

{{/*
PodDisruptionBudget: {ctx, app, name}. The selector is that of the workload: with the version among its labels the budget
would lose sight of the old pods during a roll-out.
*/}}
{{- define "dapr.podDisruptionBudget" -}}
{{- $disruption := .ctx.Values.global.ha.disruption -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .name }}
  namespace: {{ .ctx.Release.Namespace }}
  labels: {{- include "dapr.labels" (dict "ctx" .ctx "app" .app) | nindent 4 }}
spec:
  {{- if not (has $disruption.minimumAvailable (list "" nil)) }}
  minAvailable: {{ toJson $disruption.minimumAvailable }}
  {{- else if not (has $disruption.maximumUnavailable (list "" nil)) }}
  maxUnavailable: {{ toJson $disruption.maximumUnavailable }}
  {{- end }}
  selector:
    matchLabels:
      app: {{ .app }}
{{- end -}}
