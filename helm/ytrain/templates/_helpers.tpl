{{- define "ytrain.selector" -}}
app.kubernetes.io/name: ytrain-operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "ytrain.labels" -}}
{{ include "ytrain.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "_" | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* What the operator does in namespaces with jobs. Secrets are made, never read. */ -}}
{{- define "ytrain.jobRules" -}}
- apiGroups: [ytrain.io]
  resources: [ytrainjobs]
  verbs: [list, watch, delete]  # delete: policy.ttlDeletes
- apiGroups: [ytrain.io]
  resources: [ytrainjobs/status]
  verbs: [patch]
- apiGroups: [ytrain.io]
  resources: [ytrainjobs/finalizers]
  verbs: [update]  # owner references that block deletion, where the cluster checks them (OpenShift)
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [secrets, services, persistentvolumeclaims]
  verbs: [create, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create, get, patch]  # the same news again is counted
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [create, patch]
{{- end }}
