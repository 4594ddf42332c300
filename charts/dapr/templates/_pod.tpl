{{/* Parts of pods that operator, sentry and injector have in common. */}}

{{/*
Annotations of a pod: {ctx, component}. Sentry signs certificates of the control plane only for pods that carry
dapr.io/control-plane, so nothing overrides it.
*/}}
{{- define "dapr.podAnnotations" -}}
{{- $own := dict "dapr.io/control-plane" .component -}}
{{- $given := .ctx.Values.deploymentAnnotations | default dict -}}
{{- include "dapr.annotations" (merge $own $given (include "dapr.prometheusAnnotations" .ctx | fromYaml)) -}}
{{- end -}}

{{/* Where the pod runs, and with which pull secrets: {ctx, app}. */}}
{{- define "dapr.scheduling" -}}
{{- $global := .ctx.Values.global -}}
{{- $expressions := list (dict "key" "kubernetes.io/os" "operator" "In" "values" (list $global.daprControlPlaneOs)) -}}
{{- with $global.daprControlPlaneArch -}}
{{- $expressions = append $expressions (dict "key" "kubernetes.io/arch" "operator" "In" "values" (list .)) -}}
{{- end -}}
{{- with $global.imagePullSecrets -}}
imagePullSecrets:
{{- range (kindIs "string" . | ternary (list .) .) }}
- name: {{ if kindIs "map" . }}{{ .name | quote }}{{ else }}{{ . | quote }}{{ end }}
{{- end }}
{{ end -}}
{{- with $global.priorityClassName -}}
priorityClassName: {{ . | quote }}
{{ end -}}
{{- with $global.nodeSelector -}}
nodeSelector: {{- toYaml . | nindent 2 }}
{{ end -}}
{{- with $global.tolerations -}}
tolerations: {{- toYaml . | nindent 0 }}
{{ end -}}
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
      - matchExpressions: {{- toYaml $expressions | nindent 8 }}
  {{- if $global.ha.enabled }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        labelSelector:
          matchExpressions:
          - key: app
            operator: In
            values:
            - {{ .app }}
        topologyKey: {{ $global.ha.topologyKey | quote }}
  {{- end }}
{{- end -}}

{{/* Security context of a container: {ctx, user?}. With `user`, that is used where runAsNonRoot is false. */}}
{{- define "dapr.securityContext" -}}
{{- if and .user (not .ctx.Values.runAsNonRoot) -}}
runAsUser: {{ int64 .user }}
{{- else -}}
runAsNonRoot: {{ .ctx.Values.runAsNonRoot }}
{{- end }}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
  - ALL
{{- with .ctx.Values.global.seccompProfile }}
seccompProfile:
  type: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Probes: {ctx, port}. Liveness asks whether the process works; readiness, which dependencies decide, would restart it for their faults. */}}
{{- define "dapr.probes" -}}
livenessProbe:
  httpGet:
    path: /livez
    port: {{ int64 .port }}
  {{- include "dapr.probeTimes" .ctx.Values.livenessProbe | nindent 2 }}
readinessProbe:
  httpGet:
    path: /healthz
    port: {{ int64 .port }}
  {{- include "dapr.probeTimes" .ctx.Values.readinessProbe | nindent 2 }}
{{- end -}}

{{- define "dapr.probeTimes" -}}
initialDelaySeconds: {{ int64 .initialDelaySeconds }}
periodSeconds: {{ int64 .periodSeconds }}
failureThreshold: {{ int64 .failureThreshold }}
{{- end -}}

{{/* Arguments about logs and metrics. */}}
{{- define "dapr.logAndMetricsArgs" -}}
{{- if .Values.global.logAsJson }}
- --log-as-json
{{- end }}
{{- if .Values.global.prometheus.enabled }}
- --enable-metrics
- --metrics-port
- {{ include "dapr.text" .Values.global.prometheus.port | quote }}
{{- else }}
- --enable-metrics=false
{{- end }}
{{- end -}}

{{- define "dapr.metricsContainerPort" -}}
{{- if .Values.global.prometheus.enabled }}
- name: metrics
  containerPort: {{ int64 .Values.global.prometheus.port }}
  protocol: TCP
{{- end }}
{{- end -}}

{{- define "dapr.metricsServicePort" -}}
{{- if .Values.global.prometheus.enabled }}
- name: metrics
  port: {{ int64 .Values.global.prometheus.port }}
  targetPort: {{ int64 .Values.global.prometheus.port }}
  protocol: TCP
  appProtocol: http
{{- end }}
{{- end -}}

{{/* Environment: the namespace of the pod, and what values add. */}}
{{- define "dapr.namespaceEnv" -}}
- name: NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- end -}}

{{- define "dapr.extraEnv" -}}
{{- range $name, $value := .Values.extraEnvVars }}
{{- if not (kindIs "invalid" $value) }}
- name: {{ $name | quote }}
  value: {{ include "dapr.text" $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Trust anchors, and the token that sentry accepts: volumes and mounts of operator and injector. */}}
{{- define "dapr.identityVolumes" -}}
- name: dapr-trust-bundle
  configMap:
    name: dapr-trust-bundle
{{- if .Values.global.mtls.mountSentryVolume }}
- name: dapr-identity-token
  projected:
    sources:
    - serviceAccountToken:
        path: token
        expirationSeconds: 600
        audience: {{ printf "spiffe://%s/ns/%s/dapr-sentry" .Values.global.mtls.controlPlaneTrustDomain .Release.Namespace | quote }}
{{- end }}
{{- end -}}

{{- define "dapr.identityMounts" -}}
- name: dapr-trust-bundle
  mountPath: /var/run/secrets/dapr.io/tls
  readOnly: true
{{- if .Values.global.mtls.mountSentryVolume }}
- name: dapr-identity-token
  mountPath: /var/run/secrets/dapr.io/sentrytoken
  readOnly: true
{{- end }}
{{- end -}}

{{/* Lists that values add to a part: {ctx, part, from}. `from` is one of extraContainers, extraVolumes, … */}}
{{- define "dapr.extra" -}}
{{- with get (get .ctx.Values.global .from | default dict) .part -}}
{{- toYaml . | nindent 0 -}}
{{- end -}}
{{- end -}}
