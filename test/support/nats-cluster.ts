/**
 * A cluster of nats-servers of a test's own, which keep their ports when they are started again.
 */
import { connect } from "@nats-io/transport-node";
import { eventually } from "./eventually.js";
import { type NatsServerOptions, startNatsServer, type TestNatsServer } from "./nats-server.js";
import { ownPort } from "./own-port.js";

export interface TestNatsCluster extends AsyncDisposable {
  readonly servers: readonly TestNatsServer[];
  /** All servers, as option `host` names them. */
  readonly host: string;
  /** Resolves when every server has a route to every other one. */
  whole(): Promise<void>;
}

/** Starts one. @param options of each server; `config` is put beside that of the cluster */
export async function startNatsCluster(count: number, options: NatsServerOptions = {}): Promise<TestNatsCluster> {
  const ports: number[] = [];
  while (ports.length < count) ports.push(await ownPort());
  const routes = ports.map((port) => `"nats://127.0.0.1:${port}"`).join(", ");
  const servers = await Promise.all(
    ports.map((port, index) =>
      startNatsServer({
        ...options,
        config: `${options.config ?? ""}
server_name: n${index + 1}
cluster { name: c, listen: "127.0.0.1:${port}", routes: [${routes}] }`,
      }),
    ),
  );
  const whole = async (): Promise<void> => {
    for (const { url } of servers) await eventually(`${url} has routes to all`, () => knowsAll(url, count));
  };
  const cluster: TestNatsCluster = {
    servers,
    host: servers.map(({ host, port }) => `${host}:${port}`).join(","),
    whole,
    async [Symbol.asyncDispose]() {
      for (const server of servers) await server[Symbol.asyncDispose]();
    },
  };
  try {
    await whole();
    return cluster;
  } catch (error) {
    await cluster[Symbol.asyncDispose]();
    throw error;
  }
}

/** True if the server announces itself and all servers of the cluster. */
async function knowsAll(url: string, count: number): Promise<boolean> {
  const nats = await connect({ servers: url, reconnect: false });
  try {
    return nats.info?.connect_urls?.length === count;
  } finally {
    await nats.close();
  }
}
