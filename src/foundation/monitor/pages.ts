/** Pages `/metrics`, `/healthz` and `/readyz`, without the server that serves them. */
import type { Logger } from "../runtime/index.js";
import { type HealthCheck, type HealthPage, healthReport } from "./health.js";
import type { MetricFamily } from "./metrics.js";
import { prometheusText, prometheusType } from "./prometheus-text.js";

/** Answer to a request. */
export interface MonitorPage {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** Body; the answer to HEAD leaves it out. */
  readonly body: string;
}

/** Sources of the pages. */
export interface PageSources {
  readonly metrics: () => Promise<readonly MetricFamily[]>;
  /** Checks in the order in which they are shown. */
  readonly health: readonly HealthCheck[];
  readonly logger: Logger;
}

const allowedMethods = "GET, HEAD";

const paths = "/metrics, /healthz and /readyz";

/**
 * Returns the page of a path. Never rejects: a failure is logged and answered with 500.
 *
 * @param program owner of the log, for the text of a failure
 */
export async function monitorPage(
  method: string,
  path: string,
  sources: PageSources,
  program: string,
): Promise<MonitorPage> {
  const read = readers.get(path);
  if (read === undefined) return line(404, `Not found. The pages are ${paths}.`);
  if (method !== "GET" && method !== "HEAD") {
    return line(405, `Only ${allowedMethods.replace(", ", " and ")} are answered.`, { Allow: allowedMethods });
  }
  try {
    return await read(sources);
  } catch (err) {
    sources.logger.error({ err, path }, "failed to render a monitoring page");
    return line(500, `The page could not be rendered; the log of ${program} says why.`);
  }
}

type PageReader = (sources: PageSources) => MonitorPage | Promise<MonitorPage>;

const readers: ReadonlyMap<string, PageReader> = new Map<string, PageReader>([
  ["/metrics", async ({ metrics }) => page(200, prometheusType, prometheusText(await metrics()))],
  ["/healthz", (sources) => healthPage("health", sources)],
  ["/readyz", (sources) => healthPage("readiness", sources)],
]);

function healthPage(name: HealthPage, { health, logger }: PageSources): MonitorPage {
  const { isOk, checks } = healthReport(name, health, (check, err) =>
    logger.error({ err, check }, "a health check threw an error"),
  );
  const body = JSON.stringify({ status: isOk ? "ok" : "failing", checks });
  return page(isOk ? 200 : 503, "application/json; charset=utf-8", `${body}\n`);
}

function line(status: number, text: string, headers: MonitorPage["headers"] = {}): MonitorPage {
  return page(status, "text/plain; charset=utf-8", `${text}\n`, headers);
}

function page(status: number, contentType: string, body: string, more: MonitorPage["headers"] = {}): MonitorPage {
  const headers = { "Content-Type": contentType, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff" };
  return { status, headers: { ...headers, ...more }, body };
}
