/** A Prometheus of the tests' own, which scrapes what they name every second. */
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { ServerProcess } from "../../src/development/dev/server-process.js";
import { monitor, type Peer } from "../../src/jobs-and-peers/peer/index.js";
import { eventually } from "./eventually.js";
import { findPrometheus } from "./promtool.js";
import { temporaryDirectory } from "./temporary.js";

interface Sample {
  readonly metric: Readonly<Record<string, string>>;
  readonly value: readonly [time: number, value: string];
}

export interface TestPrometheus extends AsyncDisposable {
  /** Answer to an instant query. Throws what Prometheus says of a query that it refuses. */
  query(expression: string): Promise<readonly Sample[]>;
  /** Names of the alerts that fire, once each. */
  firing(): Promise<readonly string[]>;
}

/**
 * @param targets `host:port` of the pages `/metrics`, by job
 * @param rules content of a rule file, evaluated every second
 */
export async function startPrometheus(
  targets: Readonly<Record<string, readonly string[]>>,
  rules?: string,
): Promise<TestPrometheus> {
  const program = await findPrometheus();
  const directory = temporaryDirectory();
  const config = {
    global: { scrape_interval: "1s", evaluation_interval: "1s" },
    rule_files: rules === undefined ? [] : [join(directory, "rules.yaml")],
    scrape_configs: Object.entries(targets).map(([job, each]) => ({
      job_name: job,
      static_configs: [{ targets: each }],
    })),
  };
  if (rules !== undefined) writeFileSync(join(directory, "rules.yaml"), rules);
  // JSON is YAML.
  writeFileSync(join(directory, "prometheus.yaml"), JSON.stringify(config));
  const server = await ServerProcess.start({
    name: "Prometheus",
    program,
    args: [
      `--config.file=${join(directory, "prometheus.yaml")}`,
      `--storage.tsdb.path=${join(directory, "data")}`,
      "--web.listen-address=127.0.0.1:0",
    ],
    env: {},
    logFile: join(directory, "prometheus.log"),
  });
  let address: string | undefined;
  await eventually("Prometheus is ready", async () => {
    if (server.end !== undefined) throw server.endedEarly();
    address ??= /msg="Listening on".* address=(\S+)/.exec(server.logTail(1_000))?.[1];
    if (address === undefined) return false;
    return (await fetch(`http://${address}/-/ready`)).ok;
  });
  return {
    async query(expression) {
      const response = await fetch(`http://${address}/api/v1/query`, {
        method: "POST",
        body: new URLSearchParams({ query: expression }),
      });
      const { status, error, data } = (await response.json()) as {
        readonly status: string;
        readonly error?: string;
        readonly data?: { readonly result: readonly Sample[] };
      };
      if (status !== "success") throw new Error(`${expression}: ${error}`);
      return data!.result;
    },
    async firing() {
      const { data } = (await (await fetch(`http://${address}/api/v1/alerts`)).json()) as {
        readonly data: {
          readonly alerts: readonly { readonly state: string; readonly labels: Readonly<Record<string, string>> }[];
        };
      };
      const firing = data.alerts.filter(({ state }) => state === "firing");
      return [...new Set(firing.map(({ labels }) => labels["alertname"]!))];
    },
    [Symbol.asyncDispose]: () => server.stop({ immediately: true }),
  };
}

/** Serves the metrics of peers at a target, `host:port`. */
export async function servePeerMetrics(
  ...peers: readonly Peer[]
): Promise<AsyncDisposable & { readonly target: string }> {
  const pages = monitor(...peers);
  const server = createServer(async (request, response) => {
    const page = await pages(request);
    response.writeHead(page.status, Object.fromEntries(page.headers)).end(await page.text());
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    target: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
    },
  };
}
