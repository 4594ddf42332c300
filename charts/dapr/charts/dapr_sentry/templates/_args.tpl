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
{{- if .Values.jwt.enabled }}
- --jwt-enabled=true
{{- include "dapr.sentry.flag" (list "jwt-key-filename" .Values.jwt.keyFilename) }}
{{- include "dapr.sentry.flag" (list "jwks-filename" .Values.jwt.jwksFilename) }}
{{- include "dapr.sentry.flag" (list "jwt-issuer" .Values.jwt.issuer) }}
{{- include "dapr.sentry.flag" (list "jwt-signing-algorithm" .Values.jwt.signingAlgorithm) }}
{{- include "dapr.sentry.flag" (list "jwt-key-id" .Values.jwt.keyID) }}
{{- end }}
{{- if .Values.oidc.enabled }}
- --oidc-enabled=true
- --oidc-server-listen-address=0.0.0.0
{{- include "dapr.sentry.flag" (list "oidc-jwks-uri" .Values.oidc.jwksURI) }}
{{- include "dapr.sentry.flag" (list "oidc-path-prefix" .Values.oidc.pathPrefix) }}
{{- include "dapr.sentry.flag" (list "oidc-allowed-hosts" (join "," .Values.oidc.allowedHosts)) }}
{{- include "dapr.sentry.flag" (list "oidc-server-tls-cert-file" .Values.oidc.tls.certFile) }}
{{- include "dapr.sentry.flag" (list "oidc-server-tls-key-file" .Values.oidc.tls.keyFile) }}
- --oidc-server-tls-enabled={{ .Values.oidc.tls.enabled }}
{{- end }}
{{- range .Values.extraArgs }}
- {{ include "dapr.text" . | quote }}
{{- end }}
{{- end -}}

{{/* --name=value where the value is set: [name, value]. */}}
{{- define "dapr.sentry.flag" -}}
{{- with index . 1 }}
- {{ printf "--%s=%s" (index $ 0) . | quote }}
{{- end }}
{{- end -}}
