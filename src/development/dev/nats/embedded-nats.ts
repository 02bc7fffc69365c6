/** Embedded nats-server with JetStream. */
import { once } from "node:events";
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { writePrivate } from "../../../foundation/runtime/index.js";
import type { PortWish } from "../free-port.js";
import type { RunDirectory } from "../run-directory.js";
import { type StartedServer, startServer } from "../server-process.js";
import { findNatsServer, type NatsSearch } from "./binary.js";

const readyTimeoutMs = 30_000;
const probeTimeoutMs = 5_000;

/** Contents of the ports file that the server writes. */
interface Ports {
  readonly nats: readonly string[];
  readonly monitoring: readonly string[];
}

/**
 * Finds or fetches nats-server, starts it in the run directory, and resolves when the server and its JetStream answer.
 * If that fails, the caller stops the processes that may be running there (`stopServersOf`).
 */
export async function startNats(
  directory: RunDirectory,
  {
    port: wish,
    config,
    ...search
  }: NatsSearch & { readonly port?: PortWish | undefined; readonly config?: string | undefined },
): Promise<StartedServer> {
  const { program, version, origin } = await findNatsServer(search);
  const configFile = join(directory.path, "nats.conf");
  if (config !== undefined) writePrivate(configFile, config);
  mkdirSync(directory.natsStore, { recursive: true });
  chmodSync(directory.natsStore, 0o700);
  const portsDirectory = join(directory.path, "nats-ports");
  const { process, port } = await startServer({
    ...search,
    commandAt: (port) => {
      // A killed server leaves its ports file, and the next server may get the same pid.
      rmSync(portsDirectory, { recursive: true, force: true });
      mkdirSync(portsDirectory, { recursive: true, mode: 0o700 });
      const address = ["-a", "127.0.0.1", "-p", `${port}`, "-m", "-1", "--ports_file_dir", portsDirectory];
      return {
        name: "nats-server",
        program,
        args: [...(config === undefined ? [] : ["-c", configFile]), ...address, "-js", "-sd", directory.natsStore],
        env: { PATH: "/usr/bin:/bin", TZ: "UTC" },
        logFile: join(directory.path, "nats.log"),
      };
    },
    port: wish,
    portFlag: "--nats-port",
    isReady: () => portsAnswer(readPorts(portsDirectory)),
    readyTimeoutMs,
  });
  return { server: { name: "nats-server", url: `nats://127.0.0.1:${port}`, version, origin }, process };
}

/** True if a nats-server sends its greeting at the URL. */
export async function natsAnswers(url: string): Promise<boolean> {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname.replace(/^\[|\]$/g, ""), port: Number(port || 4222) });
  try {
    const [greeting] = (await once(socket, "data", { signal: AbortSignal.timeout(probeTimeoutMs) })) as [Buffer];
    return greeting.toString("latin1").startsWith("INFO {");
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

async function portsAnswer(ports: Ports | undefined): Promise<boolean> {
  if (ports === undefined || !(await natsAnswers(ports.nats[0]!))) return false;
  try {
    const url = `${ports.monitoring[0]}/healthz?js-enabled-only=true`;
    return (await fetch(url, { signal: AbortSignal.timeout(probeTimeoutMs) })).ok;
  } catch {
    return false;
  }
}

/** Reads the ports file; undefined until it is complete. */
function readPorts(directory: string): Ports | undefined {
  try {
    const [file] = readdirSync(directory);
    return file === undefined ? undefined : (JSON.parse(readFileSync(join(directory, file), "utf8")) as Ports);
  } catch {
    return undefined;
  }
}
