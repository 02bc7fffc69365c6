/**
 * A workload: subscriptions whose calls are in a ledger, some `hawser serve` that run them, and a publisher of numbered messages.
 */
import { testNatsUrl } from "../../support/database.js";
import { type CallAudit, CallLedger } from "./call-ledger.js";
import { Publisher } from "./publisher.js";
import { ServeGroup } from "./serve-group.js";
import { epochsOfTwo } from "./terms.js";

/** Servers, processes and load. */
export interface SubscriptionsOptions {
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
export class Subscriptions implements AsyncDisposable {
  readonly ledger: CallLedger;
  readonly group: ServeGroup;
  readonly publisher: Publisher;

  private constructor(ledger: CallLedger, group: ServeGroup, publisher: Publisher) {
    this.ledger = ledger;
    this.group = group;
    this.publisher = publisher;
  }

  /** Resolves when each subscription runs, and messages are being published. */
  static async start(options: SubscriptionsOptions): Promise<Subscriptions> {
    const { databaseUrl, natsUrl = testNatsUrl(), processes = 3, flags = [], perSecond = 1_000 } = options;
    const ledger = await CallLedger.make(databaseUrl);
    const group = await ServeGroup.start(databaseUrl, processes, flags);
    const { subjects } = ledger;
    const publisher = await Publisher.open({ natsUrl, subjects, perSecond });
    await ledger.isLive(() => publisher.probe());
    if (perSecond > 0) publisher.begin();
    return new Subscriptions(ledger, group, publisher);
  }

  /** Publishes a little more, waits until everything has run that can, and looks at everything. */
  async finish(): Promise<CallAudit> {
    const { group, ledger, publisher } = this;
    await publisher.more(100);
    await publisher.end();
    await ledger.reaches(publisher.last);
    const found = await ledger.audit(publisher.last);
    const ofTwo = epochsOfTwo(group.members.flatMap(({ terms }) => terms));
    return { ...found, findings: { ...found.findings, interleaved: [...found.findings.interleaved, ...ofTwo] } };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.publisher[Symbol.asyncDispose]();
    await this.group[Symbol.asyncDispose]();
    await this.ledger[Symbol.asyncDispose]();
  }
}
