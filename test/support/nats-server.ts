/**
 * A nats-server of a test's own, for what the shared one of the run cannot be: one that demands credentials or TLS, that
 * dies and comes back, or that is told to drain.
 */
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findNatsServer, type NatsBinary } from "../../src/development/dev/nats/binary.js";
import { natsAnswers } from "../../src/development/dev/nats/embedded-nats.js";
import { ServerProcess } from "../../src/development/dev/server-process.js";
import { eventually } from "./eventually.js";
import { ownPort } from "./own-port.js";

/** Settings of the server. */
export interface NatsServerOptions {
  /**
   * The text of its configuration file, in which `$DIR` stands for the directory that `files` are in. Address, port and
   * JetStream's directory are set beside it.
   */
  readonly config?: string;
  /** Files that the configuration names, such as certificates: name → content. */
  readonly files?: Readonly<Record<string, string>>;
  /** Default: false. */
  readonly jetStream?: boolean;
  /** Whether it answers at `monitorUrl`. Default: with JetStream. */
  readonly monitor?: boolean;
}

/** A nats-server on a port of 127.0.0.1. */
export interface TestNatsServer extends AsyncDisposable {
  /** `nats://127.0.0.1:<port>`, without credentials. */
  readonly url: string;
  readonly host: string;
  readonly port: number;
  /** `http://…`, another one after each start; empty without `monitor`. */
  readonly monitorUrl: string;
  /** Ends it in order. Its port and what JetStream stored stay for `restart`. */
  stop(): Promise<void>;
  /** Ends it by SIGKILL. */
  kill(): Promise<void>;
  /** Copies what JetStream has stored, as it is on the disk now; only while it does not run. */
  copyStore(): void;
  /** Puts that copy in its place again; only while it does not run. */
  setStoreBack(): void;
  /** Starts it again on the same port, with the same store, ending it in order before if it runs. */
  restart(): Promise<void>;
  /** Gives it another configuration file (see `config`), which it reads without ending. Resolves when it has. */
  reload(config: string): Promise<void>;
  /** Sends its process a signal: SIGUSR2 begins its lame duck mode, SIGSTOP makes it hang. */
  signal(signal: NodeJS.Signals): void;
  /** Log of the server so far. */
  log(): string;
}

/** Looked for once in each worker: it is read whole, to compare its hash, and asked for its version. */
let found: Promise<NatsBinary> | undefined;

function natsBinary(): Promise<NatsBinary> {
  found ??= findNatsServer();
  return found;
}

/** Whether the nats-server that the tests start is of that version, such as `2.10`, or of a newer one. */
export async function natsServerIsFrom(version: `2.${number}`): Promise<boolean> {
  const parts = (text: string): number[] => text.split(".").map(Number);
  const [major, minor] = parts((await natsBinary()).version) as [number, number];
  const [leastMajor, leastMinor] = parts(version) as [number, number];
  return major > leastMajor || (major === leastMajor && minor >= leastMinor);
}

/**
 * Starts a nats-server and resolves when it answers.
 *
 *     await using server = await startNatsServer({ config: 'authorization { token: "right" }' });
 */
export async function startNatsServer(options: NatsServerOptions = {}): Promise<TestNatsServer> {
  const directory = mkdtempSync(join(tmpdir(), "hawser-nats-"));
  try {
    for (const [name, content] of Object.entries(options.files ?? {})) writeFileSync(join(directory, name), content);
    const { jetStream = false, monitor = jetStream } = options;
    const server = new Server(directory, jetStream, monitor, (await natsBinary()).program);
    server.configure(options.config ?? "");
    await server.start();
    return server;
  } catch (error) {
    rmSync(directory, { recursive: true, force: true });
    throw error;
  }
}

/** Number of starts while other programs take the port in between. */
const portTries = 5;

class Server implements TestNatsServer {
  readonly host = "127.0.0.1";
  port = -1;
  monitorUrl = "";
  #process: ServerProcess | undefined;

  readonly #directory: string;
  readonly #jetStream: boolean;
  readonly #monitor: boolean;
  readonly #program: string;

  constructor(directory: string, jetStream: boolean, monitor: boolean, program: string) {
    this.#directory = directory;
    this.#jetStream = jetStream;
    this.#monitor = monitor;
    this.#program = program;
  }

  get url(): string {
    return `nats://${this.host}:${this.port}`;
  }

  configure(config: string): void {
    writeFileSync(this.#path("nats.conf"), config.replaceAll("$DIR", this.#directory));
  }

  copyStore(): void {
    rmSync(this.#path("store-copy"), { recursive: true, force: true });
    cpSync(this.#path("store"), this.#path("store-copy"), { recursive: true });
  }

  setStoreBack(): void {
    rmSync(this.#path("store"), { recursive: true, force: true });
    cpSync(this.#path("store-copy"), this.#path("store"), { recursive: true });
  }

  async start(): Promise<void> {
    // Not one that the system would choose: that one could be somebody else's before a restart.
    const isNew = this.port === -1;
    for (let tried = 1; ; tried++) {
      if (isNew) this.port = await ownPort();
      const logged = this.log().length;
      try {
        await this.#launch();
        return;
      } catch (error) {
        if (tried === portTries || !this.log().slice(logged).includes("address already in use")) throw error;
      }
    }
  }

  async #launch(): Promise<void> {
    const ports = this.#path("ports");
    rmSync(ports, { recursive: true, force: true });
    mkdirSync(ports);
    const process = await ServerProcess.start({
      name: "nats-server",
      program: this.#program,
      args: [
        ...["-c", this.#path("nats.conf"), "-a", this.host, "-p", `${this.port}`, "--ports_file_dir", ports],
        ...(this.#monitor ? ["-m", "-1"] : []),
        ...(this.#jetStream ? ["-js", "-sd", this.#path("store")] : []),
      ],
      env: { PATH: "/usr/bin:/bin", TZ: "UTC" },
      logFile: this.#path("nats.log"),
    });
    this.#process = process;
    try {
      await eventually("nats-server answers", async () => {
        if (process.end !== undefined) throw process.endedEarly();
        return this.#isReady(ports);
      });
    } catch (error) {
      await process.stop({ immediately: true });
      throw error;
    }
  }

  async stop(): Promise<void> {
    await this.#process?.stop({ immediately: false });
    this.#process = undefined;
  }

  async kill(): Promise<void> {
    const process = this.#process;
    this.#process = undefined;
    if (process === undefined || process.end !== undefined) return;
    globalThis.process.kill(process.pid, "SIGKILL");
    await process.ended;
  }

  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }

  async reload(config: string): Promise<void> {
    const reloads = (): number => this.log().split("Reloaded server configuration").length;
    const before = reloads();
    this.configure(config);
    this.signal("SIGHUP");
    await eventually("nats-server has read its new configuration", () => reloads() > before);
  }

  signal(signal: NodeJS.Signals): void {
    if (this.#process === undefined) throw new Error("this nats-server does not run");
    process.kill(this.#process.pid, signal);
  }

  log(): string {
    const path = this.#path("nats.log");
    return existsSync(path) ? readFileSync(path, "utf8") : "";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // One that hangs by SIGSTOP hears of no other signal.
    await this.kill();
    rmSync(this.#directory, { recursive: true, force: true, maxRetries: 5 });
  }

  async #isReady(portsDirectory: string): Promise<boolean> {
    const ports = portsIn(portsDirectory);
    if (ports === undefined) return false;
    this.port = Number(new URL(ports.nats[0]!).port);
    this.monitorUrl = ports.monitoring?.[0] ?? "";
    if (!(await natsAnswers(this.url))) return false;
    return !this.#jetStream || (await fetch(`${this.monitorUrl}/healthz?js-enabled-only=true`)).ok;
  }

  #path(name: string): string {
    return join(this.#directory, name);
  }
}

/** Reads the addresses from the ports file, once it is complete. */
function portsIn(directory: string): { readonly nats: string[]; readonly monitoring?: string[] } | undefined {
  try {
    const [file] = readdirSync(directory);
    return file === undefined ? undefined : JSON.parse(readFileSync(join(directory, file), "utf8"));
  } catch {
    return undefined;
  }
}
