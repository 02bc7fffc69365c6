/**
 * Some `hawser serve`, a ledger of what their subscriptions were called with, and a publisher of numbered messages for them.
 */
import { testNatsUrl } from "../../support/database.js";
import { epochsOfTwo, type LedgerFindings } from "./bridge-audit.js";
import { ServeGroup } from "./bridge-group.js";
import { BridgeLedger } from "./bridge-ledger.js";
import { BridgePublisher } from "./bridge-publisher.js";

/** Servers, processes and load of a run. */
export interface BridgeRunOptions {
  readonly databaseUrl: string;
  /** Default: the server of the run. */
  readonly natsUrl?: string;
  /** Default 3. */
  readonly processes?: number;
  /** More flags of each process. */
  readonly flags?: readonly string[];
  /** 0: it publishes when it is told to. Default 1,000. */
  readonly perSecond?: number;
}

/** Disposing ends all of it. */
export class BridgeRun implements AsyncDisposable {
  readonly ledger: BridgeLedger;
  readonly group: ServeGroup;
  readonly publisher: BridgePublisher;

  private constructor(ledger: BridgeLedger, group: ServeGroup, publisher: BridgePublisher) {
    this.ledger = ledger;
    this.group = group;
    this.publisher = publisher;
  }

  /** Resolves when each subscription runs, and messages are being published. */
  static async start(options: BridgeRunOptions): Promise<BridgeRun> {
    const { databaseUrl, natsUrl = testNatsUrl(), processes = 3, flags = [], perSecond = 1_000 } = options;
    const ledger = await BridgeLedger.make(databaseUrl);
    const group = await ServeGroup.start(databaseUrl, processes, flags);
    const { subjects } = ledger;
    const publisher = await BridgePublisher.open({ natsUrl, subjects, perSecond });
    await ledger.isLive(() => publisher.probe());
    if (perSecond > 0) publisher.begin();
    return new BridgeRun(ledger, group, publisher);
  }

  /** Publishes a little more, waits until everything has run that can, and looks at everything. */
  async finish(): Promise<LedgerFindings> {
    const { group, ledger, publisher } = this;
    await publisher.more(300);
    await publisher.end();
    await ledger.reaches(publisher.last);
    const findings = await ledger.audit(publisher.last);
    const ofTwo = epochsOfTwo(group.members.flatMap(({ terms }) => terms));
    return { ...findings, interleaved: [...findings.interleaved, ...ofTwo] };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.publisher[Symbol.asyncDispose]();
    await this.group[Symbol.asyncDispose]();
    await this.ledger[Symbol.asyncDispose]();
  }
}
