/**
 * Rules of every strategy of ownership, on a real Postgres: each contender has a session of its own, as processes have.
 */
import { randomUUID } from "node:crypto";
import { afterEach, describe, expect, it } from "vitest";
import { notifyChannels } from "../../generated/ts/rows/nats.js";
import { DatabaseAddress, type Ownership, PostgresSession } from "../../src/foundation/postgres/index.js";
import { silentLogger, systemClock } from "../../src/foundation/runtime/index.js";
import { Leases } from "../../src/jobs-and-peers/store/leases.js";
import { PostgresLeadershipTable } from "../../src/nats/bridge/leadership/postgres-table.js";
import { LeadershipProtocol } from "../../src/nats/bridge/leadership/protocol.js";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";

interface Contender {
  readonly session: PostgresSession;
  /** Resolves when it is the owner, or knows that it is not yet. */
  acquire(): Promise<void>;
  /** Undefined before it is the owner, where the strategy has nothing to show then. */
  readonly owned: Ownership | undefined;
}

const common = { logger: silentLogger, queryTimeoutMs: 5_000 };

/** A session's lock, with a token. */
function ofName(databaseUrl: string): Contender {
  const session = new PostgresSession({
    ...common,
    address: DatabaseAddress.of(databaseUrl),
    heartbeatMs: 5_000,
    onConnected: (query) => leases.regainAll(query),
    onDown: () => leases.suspendAll(),
  });
  const leases = new Leases(session, { clock: systemClock, logger: silentLogger });
  let owned: Ownership | undefined;
  return {
    session,
    async acquire() {
      await session.open();
      void leases.take("one", { waitMs: 3_600_000 }).then((lease) => {
        owned = lease;
      });
      // What the session is asked is answered in its order: the first attempt has been made.
      await session.query("SELECT");
    },
    get owned() {
      return owned;
    },
  };
}

/** A heartbeat. */
function ofLeadership(databaseUrl: string): Contender {
  const nothing = (): void => {};
  const owner = randomUUID();
  const session = new PostgresSession({
    ...common,
    address: DatabaseAddress.of(databaseUrl),
    channels: [notifyChannels.natsHandler],
    onDown: () => protocol.sessionLost(),
    onNotification: () => {
      if (!protocol.isWritable) protocol.poke();
    },
  });
  const protocol = new LeadershipProtocol({
    table: new PostgresLeadershipTable(session, owner),
    clock: systemClock,
    logger: silentLogger,
    owner,
    messages: {
      unfinished: () => ({ oldestAt: undefined, behind: new Map() }),
      completeSince: () => Number.NEGATIVE_INFINITY,
      receivedSince: () => 0,
      receivedUntil: () => undefined,
      isReceiving: () => true,
      canRun: () => true,
    },
    events: { onLeading: nothing, onDeposed: nothing, onWaiting: nothing, onProgress: nothing, onProblem: nothing },
  });
  return { session, acquire: () => protocol.start(), owned: protocol };
}

describe.each([
  ["a name, by a session's lock", ofName],
  ["leadership, by a heartbeat", ofLeadership],
])("ownership of %s", (_strategy, contend) => {
  const sessions: PostgresSession[] = [];
  afterEach(async () => {
    await Promise.all(sessions.splice(0).map((session) => session.close()));
  });
  const contender = (databaseUrl: string): Contender => {
    const made = contend(databaseUrl);
    sessions.push(made.session);
    return made;
  };
  const owns = ({ owned }: Contender) => owned?.state === "held" && owned.isWritable;

  it("belongs to one process, and after its release to the next with a greater epoch", async () => {
    await using database = await testDatabase();
    const [first, second] = [contender(database.url), contender(database.url)];
    await first.acquire();
    await eventually("the first one has it", () => owns(first));
    const { epoch } = first.owned!;
    await second.acquire();
    expect([owns(first), owns(second)]).toEqual([true, false]);
    await first.owned!.release({ clean: true });
    expect([first.owned!.state, first.owned!.isWritable]).toEqual(["released", false]);
    await eventually("the other one has it", () => owns(second));
    expect(second.owned!.epoch! > epoch!).toBe(true);
    await second.owned!.release({ clean: true });
  });

  it("is held again under the same epoch when the session is back", async () => {
    await using database = await testDatabase();
    const owner = contender(database.url);
    await owner.acquire();
    await eventually("it has it", () => owns(owner));
    const { epoch } = owner.owned!;
    const { generation } = owner.session;
    owner.session.restart();
    await eventually("it is held over another connection", () => owner.session.generation > generation && owns(owner));
    expect(owner.owned!.epoch).toBe(epoch);
    await owner.owned!.release({ clean: true });
  });
});
