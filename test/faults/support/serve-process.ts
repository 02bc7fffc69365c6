/**
 * `hawser serve` in a process of its own, at a port that stays the same over its restarts.
 */
import { createInterface } from "node:readline";
import { expect, onTestFinished } from "vitest";
import { type Program, startProgram } from "../../support/program.js";

/** A line of its log, as far as tests look at it. */
export interface LogLine extends Readonly<Record<string, unknown>> {
  /** Time of the line, in milliseconds since 1970. */
  readonly time: number;
  readonly msg: string;
}

/** Disposing kills it. */
export class ServeProcess implements AsyncDisposable {
  #program: Program | undefined;
  #log: LogLine[] = [];
  /** Epochs in which the process has led, over its restarts. */
  readonly terms: { readonly epoch: string; readonly owner: string }[] = [];
  #isOver = false;
  #monitorAddress: string | undefined;

  readonly databaseUrl: string;
  readonly #flags: readonly string[];
  readonly #env: Readonly<Record<string, string>>;
  #port = 0;

  private constructor(databaseUrl: string, flags: readonly string[], env: Readonly<Record<string, string>>) {
    this.databaseUrl = databaseUrl;
    this.#flags = flags;
    this.#env = env;
  }

  /** Starts one, and resolves when it answers. @param flags more of them @param env more of its environment */
  static async start(
    databaseUrl: string,
    flags: readonly string[] = [],
    env: Readonly<Record<string, string>> = {},
  ): Promise<ServeProcess> {
    const serve = ServeProcess.make(databaseUrl, flags, env);
    await serve.start();
    return serve;
  }

  /** Makes one that does not run yet. */
  static make(
    databaseUrl: string,
    flags: readonly string[] = [],
    env: Readonly<Record<string, string>> = {},
  ): ServeProcess {
    const serve = new ServeProcess(databaseUrl, flags, env);
    // A test that runs out of time disposes of nothing, and goes on.
    onTestFinished(() => {
      serve.#isOver = true;
      return serve.crash();
    });
    return serve;
  }

  /** True while its process runs. */
  get isRunning(): boolean {
    const { child } = this.#program ?? {};
    return child !== undefined && child.exitCode === null && child.signalCode === null;
  }

  get pid(): number {
    return this.#program!.pid;
  }

  /** Port of the gateway; 0 before the first start. */
  get port(): number {
    return this.#port;
  }

  /** `host:port` of `/metrics`, where it was started with `--monitor`. */
  get monitorAddress(): string {
    return this.#monitorAddress!;
  }

  /** A metric, all its labels together, where it was started with `--monitor`. */
  async metric(name: string): Promise<number> {
    const text = await (await fetch(`http://${this.#monitorAddress}/metrics`)).text();
    const samples = text.matchAll(new RegExp(`^${name}(?:\\{.*\\})? (\\d+)`, "gm"));
    return [...samples].reduce((sum, [, value]) => sum + Number(value), 0);
  }

  /** Whether it leads, where it was started with `--monitor`. */
  async leads(): Promise<boolean> {
    return (await this.metric("hawser_bridge_leading")) === 1;
  }

  /** Messages that it has received since its start, where it was started with `--monitor`. */
  async received(): Promise<number> {
    return await this.metric("hawser_bridge_messages_received_total");
  }

  /** Log lines since the last start. */
  get log(): readonly LogLine[] {
    return this.#log;
  }

  /** Exit status and output of the process, when it has ended. */
  get ended(): Program["ended"] {
    return this.#program!.ended;
  }

  /** Starts it again. Resolves when it answers, with the time: of `performance.now()`. */
  async start(): Promise<number> {
    this.launch();
    const { gatewayUrl, monitorAddress } = JSON.parse(await this.#program!.firstLine);
    this.#port = Number(new URL(gatewayUrl).port);
    this.#monitorAddress = monitorAddress;
    return performance.now();
  }

  /** Starts it again, and does not wait. */
  launch(): void {
    if (this.#isOver) throw new Error("the test that this process is for has ended");
    const args = ["serve", "--json", "--log-level", "info", "--listen", `127.0.0.1:${this.#port}`, ...this.#flags];
    this.#program = startProgram("src/operating/cli/main.ts", args, {
      env: { ...this.#env, HAWSER_DATABASE_URL: this.databaseUrl },
      stdin: "ignore",
    });
    const log: LogLine[] = [];
    this.#log = log;
    const lines = createInterface({ input: this.#program.child.stderr!, crlfDelay: Number.POSITIVE_INFINITY });
    lines.on("line", (line) => {
      // Not all of standard error is the log.
      if (!line.startsWith("{")) return;
      const said: LogLine = JSON.parse(line);
      log.push(said);
      if (said.msg === "became the leader of the subscriptions")
        this.terms.push({ epoch: `${said["epoch"]}`, owner: `${said["owner"]}` });
    });
  }

  /** Sends it a signal. */
  signal(signal: NodeJS.Signals): void {
    process.kill(this.pid, signal);
  }

  /** Ends it in order, and waits until it has ended. */
  async stop(): Promise<void> {
    this.signal("SIGTERM");
    const { status, stderr } = await this.ended;
    expect({ status, stderr }).toMatchObject({ status: 0 });
  }

  /** Kills it as a machine that loses its power would, and waits until it is gone. */
  async crash(): Promise<void> {
    if (this.isRunning) this.signal("SIGKILL");
    await this.#program?.ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.crash();
  }
}
