/**
 * What the monitoring port answers, by path.
 */
import type { Logger } from "../../runtime/index.js";
import { type HealthCheck, type HealthPage, healthReport } from "./health.js";
import type { ServeMetrics } from "./serve-metrics.js";

/** An answer. */
export interface Page {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
}

/** Where the contents come from. */
export interface PageSources {
  readonly metrics: Pick<ServeMetrics, "contentType" | "text">;
  /** In the order in which they are shown. */
  readonly health: readonly HealthCheck[];
  readonly logger: Logger;
}

/** The methods that are answered. */
export const allowedMethods = "GET, HEAD";

const paths = "/metrics, /healthz and /readyz";

/** Never rejects: what fails is logged and answered with 500. */
export async function pageOf(method: string, target: string, sources: PageSources): Promise<Page> {
  const path = target.split("?", 1)[0];
  const read = readers.get(path ?? "");
  if (read === undefined) return line(404, `There is nothing here. What there is: ${paths}.`);
  if (method !== "GET" && method !== "HEAD")
    return line(405, `Only ${allowedMethods.replace(", ", " and ")} are answered.`);
  try {
    return await read(sources);
  } catch (err) {
    sources.logger.error({ err, path }, "a page of the monitoring port could not be made");
    return line(500, "The page could not be made; the log of `hawser serve` says why.");
  }
}

type PageReader = (sources: PageSources) => Page | Promise<Page>;

const readers: ReadonlyMap<string, PageReader> = new Map<string, PageReader>([
  ["/metrics", async ({ metrics }) => ({ status: 200, contentType: metrics.contentType, body: await metrics.text() })],
  ["/healthz", (sources) => healthPage("health", sources)],
  ["/readyz", (sources) => healthPage("readiness", sources)],
]);

function healthPage(page: HealthPage, { health, logger }: PageSources): Page {
  const { isOk, checks } = healthReport(page, health, (check, err) =>
    logger.error({ err, check }, "a health check failed by itself"),
  );
  const body = JSON.stringify({ status: isOk ? "ok" : "failing", checks });
  return { status: isOk ? 200 : 503, contentType: "application/json; charset=utf-8", body: `${body}\n` };
}

function line(status: number, text: string): Page {
  return { status, contentType: "text/plain; charset=utf-8", body: `${text}\n` };
}
