/** Embedded nats-server with JetStream. It chooses its ports itself unless a port is requested. */
import { once } from "node:events";
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { writePrivate } from "../../files/index.js";
import { type PortWish, portFor } from "../free-port.js";
import type { RunDirectory } from "../run-directory.js";
import { ServerProcess, type StartedServer } from "../server-process.js";
import { findNatsServer, type NatsBinary, type NatsSearch } from "./binary.js";

const readyTimeoutMs = 30_000;
const probeTimeoutMs = 5_000;
const portAttempts = 5;

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
  const binary = await findNatsServer(search);
  if (config !== undefined) writePrivate(configOf(directory), config);
  mkdirSync(directory.natsStore, { recursive: true });
  chmodSync(directory.natsStore, 0o700);
  for (let attempt = 1; ; attempt++) {
    const chosen = wish && (await portFor("--nats-port", wish));
    if (chosen?.isAnother) search.onProgress?.(`The port ${wish?.port} is in use: nats-server uses another one`);
    const configArgs = config === undefined ? [] : ["-c", configOf(directory)];
    const started = await startAt(chosen?.port ?? -1, configArgs, directory, binary, search.signal);
    if ("server" in started) return started;
    // Another program took the port between the check and the start.
    const portTaken = /address already in use/i.test(started.process.logTail());
    if (!portTaken || wish === undefined || attempt === portAttempts) throw started.process.endedEarly();
  }
}

function configOf({ path }: RunDirectory): string {
  return join(path, "nats.conf");
}

/**
 * Starts nats-server.
 *
 * @param port -1 for a free port
 * @returns only the process if it has ended
 * @throws `dev_server_failed` if the server does not answer in time; the reason of the signal
 */
async function startAt(
  port: number,
  configArgs: readonly string[],
  directory: RunDirectory,
  binary: NatsBinary,
  signal: AbortSignal | undefined,
): Promise<StartedServer | { readonly process: ServerProcess }> {
  const portsDirectory = join(directory.path, "nats-ports");
  // A killed server leaves its ports file, and the next server may get the same pid.
  rmSync(portsDirectory, { recursive: true, force: true });
  mkdirSync(portsDirectory, { recursive: true, mode: 0o700 });
  const server = await ServerProcess.start({
    name: "nats-server",
    program: binary.program,
    args: [
      ...configArgs,
      "-a",
      "127.0.0.1",
      "-p",
      `${port}`,
      "-m",
      "-1",
      "--ports_file_dir",
      portsDirectory,
      "-js",
      "-sd",
      directory.natsStore,
    ],
    env: { PATH: "/usr/bin:/bin", TZ: "UTC" },
    logFile: join(directory.path, "nats.log"),
  });
  const isReady = () => portsAnswer(readPorts(portsDirectory));
  if (!(await server.answers(isReady, readyTimeoutMs, signal))) return { process: server };
  const { version, origin } = binary;
  return {
    server: { name: "nats-server", url: readPorts(portsDirectory)!.nats[0]!, version, origin },
    process: server,
  };
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
