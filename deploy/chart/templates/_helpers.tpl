{{/* Names leave room for the suffixes of pods and revisions. */}}
{{- define "hawser.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-hawser" .Release.Name) (contains "hawser" .Release.Name) -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "hawser.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* Labels that select pods of a component. Takes a dict of root and component. */}}
{{- define "hawser.selector" -}}
app.kubernetes.io/name: hawser
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "hawser.labels" -}}
{{ include "hawser.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "hawser.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.user }}
runAsGroup: {{ .Values.group }}
fsGroup: {{ .Values.group }}
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "hawser.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/* What every pod has: no token, users, placement. Takes a dict of root and component. */}}
{{- define "hawser.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- include "hawser.podSecurity" .root | nindent 2 }}
topologySpreadConstraints:
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "hawser.selector" $ | nindent 8 }}
  {{- end }}
{{- end -}}

{{/* `hawser init` with a login of its own. */}}
{{- define "hawser.migration" -}}
{{- if .Values.migration.enabled -}}
initContainers:
  - name: init
    image: {{ include "hawser.image" . }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args: {{- toYaml (concat (list "init") .Values.migration.args) | nindent 6 }}
    env:
      - name: HAWSER_DATABASE_URL
        valueFrom:
          secretKeyRef: { name: {{ .Values.migration.secret }}, key: {{ .Values.migration.key }} }
      {{- with include "hawser.sslEnv" . }}
      {{- . | nindent 6 }}
      {{- end }}
    securityContext: {{- include "hawser.containerSecurity" . | nindent 6 }}
    resources:
      requests: { cpu: 50m, memory: 128Mi }
      limits: { memory: 256Mi }
    volumeMounts:
      - { name: tmp, mountPath: /tmp }
      {{- if .Values.database.caSecret }}
      - { name: postgres-ca, mountPath: /etc/hawser/postgres, readOnly: true }
      {{- end }}
{{- end }}
{{- end -}}

{{/* Volumes of every pod. */}}
{{- define "hawser.volumes" -}}
- name: tmp
  emptyDir: { sizeLimit: 64Mi }
{{- with .Values.database.caSecret }}
- name: postgres-ca
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items: [{ key: ca.crt, path: ca.crt }]
{{- end }}
{{- end -}}

{{/* A rule of egress to a port. Takes a dict of port, peers and protocols. */}}
{{- define "hawser.egress" -}}
- ports:
    {{- range .protocols | default (list "TCP") }}
    - { protocol: {{ . }}, port: {{ $.port }} }
    {{- end }}
  {{- with .peers }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Egress of every pod: Postgres, NATS, names. */}}
{{- define "hawser.commonEgress" -}}
{{- with .Values.networkPolicy -}}
{{ include "hawser.egress" .postgres }}
{{ include "hawser.egress" .nats }}
{{ include "hawser.egress" (merge (dict "protocols" (list "UDP" "TCP")) .dns) }}
{{- end }}
{{- end -}}

{{/* Every peer of the release. */}}
{{- define "hawser.allPeers" -}}
- podSelector:
    matchLabels:
      app.kubernetes.io/instance: {{ .Release.Name }}
      hawser/peer: "true"
{{- end -}}

{{/* TLS to Postgres, for what a URL leaves out. */}}
{{- define "hawser.sslEnv" -}}
{{- if .Values.database.caSecret -}}
- { name: PGSSLMODE, value: verify-full }
- { name: PGSSLROOTCERT, value: /etc/hawser/postgres/ca.crt }
{{- end }}
{{- end -}}

{{/* Container of a program of the user. Takes a dict of root and program, and for a peer also of its service and port. */}}
{{- define "hawser.program" -}}
{{- $root := .root -}}
{{- $service := .service -}}
{{- $port := .port -}}
{{- with .program -}}
- name: {{ if $service }}peer{{ else }}worker{{ end }}
  image: {{ .image }}
  {{- with .command }}
  command: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .args }}
  args: {{- toYaml . | nindent 4 }}
  {{- end }}
  env:
    - name: POD_NAME
      valueFrom: { fieldRef: { fieldPath: metadata.name } }
    - name: POD_NAMESPACE
      valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
    {{- if $service }}
    # The name stays with the pod: stored messages wait for it.
    - { name: PEER_NAME, value: $(POD_NAME) }
    - name: PEER_ADDRESS
      value: $(POD_NAME).{{ $service }}.$(POD_NAMESPACE).svc.{{ $root.Values.clusterDomain }}:{{ $port }}
    - { name: PEER_PORT, value: {{ $port | quote }} }
    {{- end }}
    {{- with .monitorPort }}
    - { name: MONITOR_PORT, value: {{ . | int | quote }} }
    {{- end }}
    - name: HAWSER_DATABASE_URL
      valueFrom:
        secretKeyRef: { name: {{ .database.secret }}, key: {{ .database.key | default "uri" }} }
    {{- with include "hawser.sslEnv" $root }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- if .tlsSecret }}
    - { name: TLS_FOLDER, value: /etc/hawser/tls }
    {{- end }}
    {{- with .env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .envFrom }}
  envFrom: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if or $service .monitorPort }}
  ports:
    {{- if $service }}
    - { name: peer, containerPort: {{ $port }} }
    {{- end }}
    {{- with .monitorPort }}
    - { name: monitor, containerPort: {{ . }} }
    {{- end }}
  {{- end }}
  {{- with .readinessProbe }}
  readinessProbe: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .livenessProbe }}
  livenessProbe: {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext: {{- include "hawser.containerSecurity" $root | nindent 4 }}
  {{- with .resources }}
  resources: {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - { name: tmp, mountPath: /tmp }
    {{- if .tlsSecret }}
    - { name: tls, mountPath: /etc/hawser/tls, readOnly: true }
    {{- end }}
    {{- if $root.Values.database.caSecret }}
    - { name: postgres-ca, mountPath: /etc/hawser/postgres, readOnly: true }
    {{- end }}
{{- end }}
{{- end -}}

{{/* Volumes of a program of the user. Takes a dict of root and program. */}}
{{- define "hawser.programVolumes" -}}
{{ include "hawser.volumes" .root }}
{{- with .program.tlsSecret }}
- name: tls
  secret: { secretName: {{ . }}, defaultMode: 0440 }
{{- end }}
{{- end -}}
