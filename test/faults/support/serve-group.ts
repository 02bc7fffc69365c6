/**
 * Several `hawser serve` of one database, one of which leads.
 */
import { onTestFailed } from "vitest";
import { eventually } from "../../support/eventually.js";
import { ServeProcess } from "./serve-process.js";

/** Disposing kills them. */
export class ServeGroup implements AsyncDisposable {
  readonly members: readonly ServeProcess[];

  private constructor(members: readonly ServeProcess[]) {
    this.members = members;
  }

  /** Starts so many, and resolves when all of them answer. */
  static async start(databaseUrl: string, count: number, flags: readonly string[] = []): Promise<ServeGroup> {
    const members = Array.from({ length: count }, () => ServeProcess.make(databaseUrl, flags));
    const group = new ServeGroup(members);
    onTestFailed(() => group.#tellLogs());
    await Promise.all(members.map((member) => member.start()));
    return group;
  }

  /** Members that do not lead. */
  get others(): readonly ServeProcess[] {
    const leader = this.#newest;
    return this.members.filter((member) => member !== leader);
  }

  /** Resolves with the one that leads, as soon as it has said so, and is there. */
  async leader(): Promise<ServeProcess> {
    let found: ServeProcess | undefined;
    await eventually("one of them leads", () => {
      found = this.#newest;
      return found?.isRunning === true;
    });
    return found!;
  }

  /** Resolves when the one that was started last can hear messages, too. */
  async receives(member: ServeProcess): Promise<void> {
    await eventually("it is connected to NATS", () => {
      return member.log.some(({ msg, client }) => msg === "connected to NATS" && client === "hawser subscriptions");
    });
  }

  get #newest(): ServeProcess | undefined {
    let newest: ServeProcess | undefined;
    for (const member of this.members) {
      if (termOf(member) !== undefined && (newest === undefined || termOf(member)! > termOf(newest)!)) newest = member;
    }
    return newest;
  }

  /** Prints the logs of the processes, which may be the only trace of a failure's cause. */
  #tellLogs(): void {
    for (const [index, { log }] of this.members.entries()) {
      const lines = log.slice(-15).map((line) => `\n  ${JSON.stringify(line)}`);
      console.error(`the last lines of process ${index}:${lines.join("")}`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.members.map((member) => member.crash()));
  }
}

/** The last epoch in which it led. */
function termOf(member: ServeProcess): bigint | undefined {
  const line = member.log.findLast(
    ({ msg, epoch }) => msg === "became the leader of the subscriptions" && epoch !== undefined,
  );
  // Larger ones are text, so as not to lose digits.
  return line === undefined ? undefined : BigInt(line["epoch"] as number | string);
}
