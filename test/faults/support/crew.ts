/**
 * Processes with names, which a test starts, ends and starts again. An end that nobody asked for is noted.
 */
import { onTestFinished } from "vitest";
import { eventually } from "../../support/eventually.js";
import type { Program } from "../../support/program.js";
import { nameLostStatus } from "./campaign-protocol.js";

/** Killed when the test has finished, also when that has run out of time. */
export class Crew {
  /** Ends that nobody asked for. */
  readonly unasked: string[] = [];
  /** Processes that have lost their name, and were started again. */
  namesLost = 0;
  readonly #running = new Map<string, Program>();
  readonly #program: (name: string) => Program;
  readonly #mayLoseNames: boolean;

  /** @param options.mayLoseNames processes that end since their name is lost are started again, as by any supervisor */
  constructor(program: (name: string) => Program, { mayLoseNames = false } = {}) {
    this.#program = program;
    this.#mayLoseNames = mayLoseNames;
    onTestFinished(async () => {
      await Promise.all(this.names.map((name) => this.end(name)));
    });
  }

  get names(): string[] {
    return [...this.#running.keys()];
  }

  has(name: string): boolean {
    return this.#running.has(name);
  }

  /** Starts a process. Does not wait for it. */
  launch(name: string): Program {
    const program = this.#program(name);
    this.#running.set(name, program);
    void program.ended.then(({ status, signal, stderr }) => {
      if (this.#running.get(name) !== program) return;
      if (status === nameLostStatus && this.#mayLoseNames) {
        this.namesLost += 1;
        this.launch(name);
      } else this.unasked.push(`${name} has ended (${status ?? signal}): ${stderr}`);
    });
    return program;
  }

  /** Starts processes, and resolves when all of them say that they run. */
  async start(...names: readonly string[]): Promise<void> {
    await Promise.all(names.map((name) => this.launch(name).firstLine));
  }

  /** Ends a process, and waits for that. One that is told to end in order has to: it is told so when it runs. */
  async end(name: string, signal: "SIGKILL" | "SIGTERM" = "SIGKILL"): Promise<void> {
    const { child, ended, firstLine } = this.dismiss(name);
    if (signal === "SIGTERM") await firstLine.catch(() => undefined);
    child.kill(signal);
    const { status, signal: endedBy, stderr } = await ended;
    if (signal === "SIGTERM" && status !== 0)
      this.unasked.push(`${name} has stopped with ${status ?? endedBy}: ${stderr}`);
  }

  signal(name: string, signal: NodeJS.Signals): void {
    this.#running.get(name)!.child.kill(signal);
  }

  /** Writes a line to the standard input of a process. */
  tell(name: string, line: string): void {
    this.#running.get(name)!.child.stdin!.write(`${line}\n`);
  }

  /** Hands the process over to the caller, who ends it: another one can be started under its name. */
  dismiss(name: string): Program {
    const program = this.#running.get(name)!;
    this.#running.delete(name);
    return program;
  }

  /** Resolves when the check holds. @throws an error as soon as a process has ended that nobody has ended */
  async awaits(what: string, check: () => Promise<boolean>): Promise<void> {
    await eventually(what, async () => {
      if (this.unasked.length > 0) throw new Error(this.unasked.join("\n"));
      return await check();
    });
  }
}
