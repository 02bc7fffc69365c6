/** Handler of HTTP requests for the metrics and the health of peers and workers. */
import { HawserError } from "../../foundation/errors/index.js";
import { type HealthCheck, monitorPage } from "../../foundation/monitor/index.js";
import { type MonitoredPeer, monitoredPeers } from "../worker/monitored-peer.js";
import { readPeerMetrics } from "../worker/peer-metrics.js";
import type { AnyWorker } from "../worker/worker.js";
import type { AnyPeer, Peer } from "./peer.js";

/**
 * Returns a handler for three pages: `/metrics` for Prometheus, whose label `peer` is the name of the peer or worker, and `/healthz`
 * and `/readyz` for probes, as JSON. Only the last part of a path counts, so that the handler can be mounted anywhere.
 * The handler never rejects. It needs no authentication: it shows names of peers and topics, and numbers.
 *
 *     const pages = monitor(billing, shop);
 *     Bun.serve({ port: 9464, fetch: pages });
 *
 * `/healthz` answers 503 if a peer has lost its name; it then needs a restart. A worker has none to lose. `/readyz` answers 503
 * unless all are ready (see {@link Peer.health}, {@link Worker.health}).
 *
 * @param peers peers and workers, started or not; at least one, with different names
 * @returns a handler that reads only the method and the URL, which may be relative: it also takes the requests of
 * `node:http`
 * @throws HawserError `invalid_argument`
 */
export function monitor(
  ...peers: readonly (AnyPeer | AnyWorker)[]
): (request: { readonly method?: string | undefined; readonly url?: string | undefined }) => Promise<Response> {
  const monitored = [...new Set(peers)].map((peer) => {
    const known = monitoredPeers.get(peer);
    if (known !== undefined) return known;
    throw new HawserError(
      "invalid_argument",
      "peers: an argument is not a Peer or Worker of this copy of hawser; pass these only",
    );
  });
  const [first] = monitored;
  if (first === undefined) throw new HawserError("invalid_argument", "peers: none is given; pass at least one");
  const names = monitored.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) {
    const remedy = "their time series would have the same labels; give each a monitor of its own";
    throw new HawserError("invalid_argument", `peers: two are named "${twice}": ${remedy}`);
  }
  const pages = monitorPages(monitored);
  return async ({ method = "GET", url = "/" }) => {
    try {
      const [path = ""] = url.split(/[?#]/, 1);
      return await pages(method, path.slice(path.lastIndexOf("/")));
    } catch (err) {
      first.logger.error({ err }, "failed to answer a request for a monitoring page");
      return new Response("The page could not be rendered; the log of the peer says why.\n", { status: 500 });
    }
  };
}

/** Returns a function that answers requests for the pages. */
export function monitorPages(peers: readonly MonitoredPeer[]): (method: string, path: string) => Promise<Response> {
  const metrics = () => readPeerMetrics(peers);
  const sources = { metrics, health: peers.flatMap(checksOf), logger: peers[0]!.logger };
  return async (method, path) => {
    const { status, headers, body } = await monitorPage(method, path, sources, "the peer");
    const length = { "Content-Length": String(Buffer.byteLength(body)) };
    return new Response(method === "HEAD" ? null : body, { status, headers: { ...headers, ...length } });
  };
}

function checksOf(peer: MonitoredPeer): HealthCheck[] {
  const { name } = peer;
  return [
    {
      name: "name",
      peer: name,
      affects: "health",
      state: () => ({
        ok: !peer.isNameLost(),
        detail: peer.isNameLost() ? "another process has taken the name" : undefined,
      }),
    },
    {
      name: "ready",
      peer: name,
      affects: "readiness",
      state: () => {
        const { ready, problems } = peer.health();
        return { ok: ready, detail: ready ? undefined : problems.join("; ") };
      },
    },
  ];
}
