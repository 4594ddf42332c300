{{/*
One feature's rights of the operator: {ctx, name, rules, namespace?, cluster?}. A Role in that namespace; without one, in the
release's for a namespaced installation, else a ClusterRole. `cluster` is for objects that live in no namespace. Each
feature has an object of its own, so that what is switched off is not granted.
*/}}
{{- define "dapr.operator.grant" -}}
{{- $namespaced := and .ctx.Values.global.rbac.namespaced (not .cluster) -}}
{{- $namespace := .namespace | default ($namespaced | ternary .ctx.Release.Namespace "") -}}
{{- $scope := empty $namespace | ternary "Cluster" "" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $scope }}Role
metadata:
  name: {{ .name }}
  {{- with $namespace }}
  namespace: {{ . }}
  {{- end }}
  labels: {{- include "dapr.labels" (dict "ctx" .ctx) | nindent 4 }}
rules:
{{ .rules | trim }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $scope }}RoleBinding
metadata:
  name: {{ .name }}
  {{- with $namespace }}
  namespace: {{ . }}
  {{- end }}
  labels: {{- include "dapr.labels" (dict "ctx" .ctx) | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $scope }}Role
  name: {{ .name }}
subjects:
- kind: ServiceAccount
  name: dapr-operator
  namespace: {{ .ctx.Release.Namespace }}
{{- end -}}

{{/* Whether watchInterval switches the watchdog on; the operator reads the same words as off. */}}
{{- define "dapr.operator.watchdog" -}}
{{- if not (has (include "dapr.text" .Values.watchInterval | lower) (list "0" "false" "f" "no" "off")) }}true{{ end -}}
{{- end -}}
