{{- define "dapr.sentry.args" -}}
{{- $files := .Values.global.issuerFilenames | default dict -}}
- --mode
- {{ .Values.mode | quote }}
- --log-level
- {{ .Values.logLevel | quote }}
{{ include "dapr.logAndMetricsArgs" . | trim }}
- --trust-domain
- {{ .Values.global.mtls.controlPlaneTrustDomain | quote }}
{{- with $files.ca }}
- --issuer-ca-filename
- {{ . | quote }}
{{- end }}
{{- with $files.cert }}
- --issuer-certificate-filename
- {{ . | quote }}
{{- end }}
{{- with $files.key }}
- --issuer-key-filename
- {{ . | quote }}
{{- end }}
{{- range .Values.extraArgs }}
- {{ include "dapr.text" . | quote }}
{{- end }}
{{- end -}}
