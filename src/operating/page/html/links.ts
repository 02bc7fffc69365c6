/** Links from the page to other systems: traces, logs and metrics. */

/** Options with such links, the value that each has in its address, and an example. */
export const linkOptions = {
  traceUrl: { placeholder: "{traceId}", example: "https://tempo.example.com/trace/{traceId}" },
  logUrl: { placeholder: "{messageId}", example: "https://logs.example.com/search?q={messageId}" },
  metricsUrl: { placeholder: "{topic}", example: "https://grafana.example.com/d/hawser-peer?var-topic={topic}" },
} as const;

/** Address for a value, which is encoded. */
export function filled(name: keyof typeof linkOptions, template: string, value: string): string {
  return template.replaceAll(linkOptions[name].placeholder, () => encodeURIComponent(value));
}
