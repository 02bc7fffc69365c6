/**
 * Peers as processes: started, asked, listened to and killed by a test.
 */
import { onTestFinished } from "vitest";
import type { PeerStatus } from "../../../src/jobs-and-peers/peer/index.js";
import { Log } from "../../peer/support/log.js";
import type { Received } from "../../peer/support/world.js";
import type { Calls, PeerProgramOptions, Report } from "./protocol.js";
import { RemoteProcess } from "./remote-process.js";
import type { RemoteFailure } from "./remote-protocol.js";

/** A peer in a process of its own. Killed when the test has finished, if it still runs. */
export class PeerProcess extends RemoteProcess<Calls> {
  readonly messages = new Log<Received>();
  /** When the handler of each of them began, and the message's id. */
  readonly begun = new Log<{ readonly id: string | undefined; readonly at: number; readonly text: string }>();
  readonly statuses = new Log<PeerStatus>();
  /** Numbers of the stream that were confirmed, with how. */
  readonly confirmed = new Log<{ readonly number: number; readonly outcome: string }>();
  readonly unconfirmed = new Log<{ readonly number: number; readonly failure: RemoteFailure }>();

  /** @param directory root of a copy of the project */
  constructor(options: PeerProgramOptions, directory?: string) {
    super("test/scenarios/programs/peer-process.ts", options, [], undefined, directory);
    onTestFinished(() => this.crash());
  }

  protected override hear(report: Report): void {
    if (report.kind === "message") {
      this.messages.push(report.message);
      this.begun.push({ id: report.id, at: report.at, text: report.message.text });
    } else if (report.kind === "status") this.statuses.push(report.status);
    else if (report.kind === "confirmed") this.confirmed.push(report);
    else this.unconfirmed.push(report);
  }
}

/**
 * Longer than the default, so that a message to somebody who is there is delivered also where a busy machine keeps its
 * acknowledgement waiting; one to somebody who is not is stored at once all the same.
 */
const ackTimeoutMs = 15_000;

/** Starts a process with a peer named `name`, whose topic is the name up to the hyphen; it does not run yet. */
export function peerProcess(
  databaseUrl: string,
  name: string,
  options: Partial<PeerProgramOptions["peer"]> & Omit<PeerProgramOptions, "peer"> & { directory?: string } = {},
): PeerProcess {
  const { handler, handlerMs, ledgerUrl, directory, ...peer } = options;
  const topic = name.split("-")[0] as string;
  const program = {
    peer: { name, topic, listen: "127.0.0.1:0", databaseUrl, ...peer, tuning: { ackTimeoutMs, ...peer.tuning } },
    handler,
    handlerMs,
    ledgerUrl,
  };
  return new PeerProcess(program, directory);
}

/** The same, running. */
export async function runningPeer(...args: Parameters<typeof peerProcess>): Promise<PeerProcess> {
  const started = peerProcess(...args);
  await started.call("run");
  return started;
}
