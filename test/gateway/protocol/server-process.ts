import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import type { PostgresServerOptions } from "../../../src/nats/gateway/protocol/index.js";
import { nodeProgram } from "../../support/built-programs.js";
import { eventually } from "../../support/eventually.js";
import type { HostileReport } from "./hostile-server.js";

/** A server in a process of its own. */
export class ServerProcess implements Disposable {
  readonly #child: ChildProcess;
  /** Aborted when the process has ended: what waits for it fails. */
  readonly #ended: AbortSignal;
  readonly port: number;

  private constructor(child: ChildProcess, ended: AbortSignal, port: number) {
    this.#child = child;
    this.#ended = ended;
    this.port = port;
  }

  static async start(options: Partial<Omit<PostgresServerOptions, "answer" | "logger">> = {}): Promise<ServerProcess> {
    const { execArgv, file } = nodeProgram("test/gateway/protocol/hostile-server.ts");
    const child = fork(file, [JSON.stringify(options)], { execArgv: ["--expose-gc", ...execArgv] });
    const ended = new AbortController();
    child.once("exit", (status) => ended.abort(new Error(`the server's process has ended with ${status}`)));
    const [{ port }] = (await once(child, "message", { signal: ended.signal })) as [HostileReport];
    return new ServerProcess(child, ended.signal, port);
  }

  async report(): Promise<HostileReport> {
    this.#child.send("report");
    const [report] = (await once(this.#child, "message", { signal: this.#ended })) as [HostileReport];
    return report;
  }

  /** Resolves with a report that shows no connection any more. */
  async idle(): Promise<HostileReport> {
    let report = await this.report();
    await eventually("every connection and its timers are gone", async () => {
      report = await this.report();
      return !report.resources.some((name) => name === "TCPSocketWrap" || name === "Timeout");
    });
    return report;
  }

  [Symbol.dispose](): void {
    this.#child.disconnect();
  }
}
