{{/* Binds a service account of the release to the role of the same scope: {ctx, kind, role, account}. */}}
{{- define "dapr.rbac.binding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}Binding
metadata:
  name: {{ .role }}
  {{- if eq .kind "Role" }}
  namespace: {{ .ctx.Release.Namespace }}
  {{- end }}
  labels: {{- include "dapr.labels" (dict "ctx" .ctx) | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ .role }}
subjects:
- kind: ServiceAccount
  name: {{ .account }}
  namespace: {{ .ctx.Release.Namespace }}
{{- end -}}

{{/* {ctx, name, annotations}. */}}
{{- define "dapr.rbac.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .name }}
  namespace: {{ .ctx.Release.Namespace }}
  labels: {{- include "dapr.labels" (dict "ctx" .ctx) | nindent 4 }}
  {{- with include "dapr.annotations" .annotations }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end -}}
