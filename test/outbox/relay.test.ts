/** The rules of the relay, each by itself. What random faults make of them is for the simulator. */
import { describe, expect, it } from "vitest";
import {
  type OutboxMessage,
  type OutboxPosition,
  OutboxRelay,
  type PageRead,
  type PollFound,
  type PollRead,
  type PublishOutcome,
  type PublishStep,
  type RelaySettings,
  type TurnOutcome,
  type TurnStep,
} from "../../src/nats/outbox/relay.js";
import { relaySettings } from "../simulator/outbox/relay-process.js";

const message = (id: bigint, given: Partial<OutboxMessage> = {}): OutboxMessage => {
  const destination = given.destination ?? "orders";
  const known = { id, role: "shop", route: destination, lane: undefined, bytes: 1, copyOf: undefined, enqueuedBy: 0 };
  return { ...known, refusal: undefined, destination, ...given };
};

const messages = (from: number, count: number, given: Partial<OutboxMessage> = {}): OutboxMessage[] =>
  Array.from({ length: count }, (_, nth) => message(BigInt(from + nth), given));

const start: OutboxPosition = { from: "100:100:", to: undefined, after: 0n, series: [], skipped: [] };
const settings: RelaySettings = { ...relaySettings, lateMs: 0, pollMs: 0, manyPollMs: 0, busyPolls: 0 };
const noAnswer: PublishOutcome = { kind: "unavailable", scope: "route", mayBeThere: true };

/** A relay whose turns and publishes are answered one by one. */
class Driven {
  readonly relay: OutboxRelay<OutboxMessage>;
  now = 0;
  /** Publishes that are not answered yet, in their order. */
  readonly steps: PublishStep<OutboxMessage>[] = [];
  turn: TurnStep<OutboxMessage> | undefined;
  readonly dead: unknown[] = [];

  constructor(position = start, given: Partial<RelaySettings> = {}) {
    this.relay = new OutboxRelay(position, 5n, 0, { ...settings, ...given });
    this.pump();
  }

  pump(): void {
    for (let step = this.relay.next(this.now); step !== undefined; step = this.relay.next(this.now)) {
      if (step.kind === "publish") this.steps.push(step);
      else this.turn = step;
    }
  }

  get read(): PollRead | PageRead | undefined {
    return this.turn?.read;
  }

  settle(outcome: Omit<TurnOutcome<OutboxMessage> & { kind: "done" }, "kind" | "isSaved">): void {
    const turn = this.turn!;
    this.turn = undefined;
    this.dead.push(...turn.dead);
    const isSaved = turn.mustSave || (outcome.found?.messages.length ?? 0) > 0;
    this.relay.completeTurn(turn, { kind: "done", isSaved, ...outcome }, this.now, this.now);
    this.pump();
  }

  poll(to: string, found: readonly OutboxMessage[], rest: PollFound<OutboxMessage>["rest"] = []): void {
    expect(this.read?.kind).toBe("poll");
    this.settle({ found: { kind: "poll", to, messages: found, rest } });
  }

  page(found: readonly OutboxMessage[], hasMore = false): void {
    expect(this.read?.kind).toBe("page");
    this.settle({ found: { kind: "page", messages: found, hasMore } });
  }

  /** Polls that find nothing, until there is a page. */
  pollPast(to: string): void {
    if (this.read?.kind === "poll") this.poll(to, []);
  }

  /** Turns that find nothing until the time. */
  wait(ms: number): void {
    this.now += ms;
    this.pump();
    if (this.read?.kind === "poll") this.poll(this.read.from, []);
    else if (this.turn !== undefined && this.read === undefined) this.settle({});
  }

  publish(id: bigint, outcome: PublishOutcome = { kind: "published", as: "stored" }): void {
    const nth = this.steps.findIndex((step) => step.message.id === id);
    expect(nth, `message ${id} is under way`).toBeGreaterThanOrEqual(0);
    const [step] = this.steps.splice(nth, 1);
    this.relay.completePublish(step!, outcome, this.now);
    this.pump();
  }

  get underWay(): bigint[] {
    return this.steps.map((step) => step.message.id);
  }
}

describe("a relay that takes over", () => {
  const position: OutboxPosition = { from: "100:100:", to: "110:110:", after: 70n, series: [], skipped: [71n, 120n] };

  it("reads main's set completely before it polls", () => {
    const driven = new Driven(position);
    expect(driven.read).toMatchObject({ kind: "page", role: undefined, excluded: [], from: "100:100:", after: 70n });
    driven.page([message(80n)]);
    expect(driven.read).toMatchObject({ kind: "poll", from: "110:110:" });
  });

  it("excludes the messages of series from main's pages", () => {
    const series = [{ role: "shop", route: "east", from: "90:90:", to: undefined, after: 0n }];
    const driven = new Driven({ ...position, series });
    expect(driven.read).toMatchObject({ kind: "page", excluded: [{ role: "shop", route: "east" }] });
  });

  it("skips dead letters of the previous relay, also those in its first poll", () => {
    const driven = new Driven(position);
    driven.page([message(71n), message(80n)]);
    expect(driven.relay.waiting).toBe(1);
    expect(driven.relay.position).toEqual({ ...position, after: 79n, skipped: [120n] });
    driven.poll("130:130:", [message(120n), message(121n)]);
    expect(driven.relay.waiting).toBe(2);
    expect(driven.relay.position).toEqual({ ...position, after: 79n, skipped: [120n] });
  });

  it("stops skipping dead letters that were truncated before it read them", () => {
    const driven = new Driven(position);
    driven.page([]);
    expect(driven.relay.position).toMatchObject({ from: "110:110:", to: undefined, skipped: [71n, 120n] });
    driven.poll("130:130:", [message(118n)], [{ role: "shop", route: undefined, after: 118n }]);
    expect(driven.relay.position.skipped).toEqual([71n, 120n]);
    driven.pollPast("131:131:");
    driven.page([message(120n)]);
    expect(driven.relay.position.skipped).toEqual([120n]);
    driven.publish(118n);
    expect(driven.relay.position.skipped).toEqual([]);
  });

  it("stops skipping after a first poll that finds nothing, too", () => {
    const driven = new Driven({ ...position, to: undefined, after: 0n });
    driven.poll("130:130:", []);
    expect(driven.relay.position).toEqual({ from: "130:130:", to: undefined, after: 0n, series: [], skipped: [] });
  });

  it("treats messages as in doubt that the previous relay may have published, and no later ones", () => {
    const driven = new Driven();
    driven.poll("110:110:", [message(1n)]);
    driven.poll("120:120:", [message(2n)]);
    expect(driven.steps.map((step) => step.doubt)).toEqual([{ from: Number.NEGATIVE_INFINITY, until: 0 }, undefined]);
  });
});

describe("series", () => {
  it("are opened for the rest of a poll, while main continues", () => {
    const driven = new Driven();
    driven.poll(
      "110:110:",
      [...messages(1, 7), message(8n, { role: "billing" })],
      [{ role: "shop", route: undefined, after: 8n }],
    );
    const { position } = driven.relay;
    expect(position).toMatchObject({ from: "100:100:", to: "110:110:", after: 7n });
    expect(position.series).toEqual([{ role: "shop", route: undefined, from: "100:100:", to: "110:110:", after: 0n }]);
    driven.publish(8n);
    expect(driven.relay.position).toMatchObject({ from: "110:110:", to: undefined });
  });

  it("are opened after the messages of a role of which a poll reads nothing", () => {
    const driven = new Driven();
    driven.poll("110:110:", [message(8n, { role: "billing" })], [{ role: "shop", route: undefined, after: 2n }]);
    driven.publish(8n);
    expect(driven.relay.position).toMatchObject({ from: "110:110:", to: undefined });
    expect(driven.relay.position.series).toMatchObject([{ from: "100:100:", to: "110:110:", after: 2n }]);
    driven.pollPast("111:111:");
    expect(driven.read).toMatchObject({ kind: "page", role: "shop", after: 2n });
  });

  it("keep a saved position before a rest that is not read", () => {
    const driven = new Driven();
    driven.poll("110:110:", messages(1, 8), [{ role: "shop", route: undefined, after: 8n }]);
    for (const { id } of messages(1, 8)) driven.publish(id);
    expect(driven.relay.position.series).toMatchObject([{ from: "100:100:", to: "110:110:", after: 8n }]);
  });

  it("are paged round-robin, with polls between their pages", () => {
    const driven = new Driven();
    const rest = ["shop", "billing"].map((role) => ({ role, route: undefined, after: 4n }));
    driven.poll("110:110:", messages(1, 4), rest);
    const reads: string[] = [];
    for (let turn = 0; turn < 6; turn++) {
      const { read } = driven;
      reads.push(read?.kind === "page" ? read.role! : "poll");
      if (read?.kind === "page") driven.page([message(BigInt(20 + turn), { role: read.role! })], true);
      else driven.poll(`12${turn}:12${turn}:`, []);
    }
    expect(reads).toEqual(["shop", "poll", "billing", "poll", "shop", "poll"]);
  });

  it("join a poll when their set is read, and their position is saved until that is done", () => {
    const driven = new Driven();
    driven.poll("110:110:", messages(1, 2), [{ role: "shop", route: undefined, after: 2n }]);
    driven.pollPast("111:111:");
    driven.page([message(3n)]);
    expect(driven.read).toMatchObject({ kind: "poll", series: [{ role: "shop", from: "110:110:", joins: true }] });
    driven.poll("120:120:", []);
    expect(driven.read).toMatchObject({ kind: "poll", series: [] });
    expect(driven.relay.position.series).toHaveLength(1);
    for (const id of [1n, 2n, 3n]) driven.publish(id);
    expect(driven.relay.position.series).toEqual([]);
  });

  it("do not join while their role has no free memory", () => {
    const driven = new Driven(start, { maxMessages: 8, pageMessages: 8 });
    driven.poll("110:110:", messages(1, 8));
    expect(driven.read).toMatchObject({ series: [{ role: "shop", from: "110:110:", joins: false }] });
    driven.poll("120:120:", [message(20n, { role: "billing" })]);
    expect(driven.underWay).toContain(20n);
    for (const { id } of messages(1, 8)) driven.publish(id);
    driven.pollPast("130:130:");
    expect(driven.read).toMatchObject({ series: [{ role: "shop", from: "110:110:", joins: true }] });
  });
});

describe("a route that does not answer", () => {
  const east = { route: "domain east", destination: "far" };

  /** After messages to a domain that is away for longer than `awayMs`. */
  function away(given: Partial<RelaySettings> = {}): Driven {
    const driven = new Driven(start, given);
    driven.poll("110:110:", [
      message(1n, east),
      message(2n, { ...east, lane: "k" }),
      message(3n, { ...east, lane: "k" }),
    ]);
    driven.publish(1n, noAnswer);
    driven.wait(settings.awayMs + 1);
    driven.publish(1n, noAnswer);
    return driven;
  }

  it("is away after a while: its messages leave memory, and its position waits on its own", () => {
    const driven = away();
    driven.publish(2n, noAnswer);
    driven.relay.isEnding = true;
    driven.pollPast("110:110:");
    expect(driven.relay.isIdle).toBe(true);
    expect(driven.relay.waiting).toBe(3);
    const series = [{ role: "shop", route: "domain east", from: "100:100:", to: "110:110:", after: 0n }];
    expect(driven.relay.position).toMatchObject({ to: undefined, series });
  });

  it("is probed with one message, with growing pauses", () => {
    const driven = away();
    driven.publish(2n, noAnswer);
    const tries: number[] = [];
    for (let ms = 0; ms < 4_000; ms += 10) {
      driven.wait(10);
      if (driven.steps.length === 0) continue;
      expect(driven.underWay).toEqual([1n]);
      tries.push(driven.now);
      driven.publish(1n, noAnswer);
    }
    const pauses = tries.slice(1).map((at, nth) => at - tries[nth]!);
    expect(Math.max(...pauses)).toBeLessThanOrEqual(settings.probeMaxMs + 10);
    expect(pauses.at(-1)).toBeGreaterThan(pauses[0]!);
  });

  it("is read again when it answers, without published messages, and in doubt only as far as it was tried", () => {
    const driven = away();
    driven.publish(2n);
    driven.publish(1n, { kind: "published", as: "stored" });
    driven.pollPast("120:120:");
    expect(driven.read).toMatchObject({
      kind: "page",
      route: "domain east",
      from: "100:100:",
      to: "110:110:",
      after: 2n,
    });
    driven.page([message(3n, { ...east, lane: "k" })]);
    expect(driven.underWay).toEqual([3n]);
    driven.publish(3n);
    driven.pollPast("130:130:");
    driven.pollPast("140:140:");
    expect(driven.relay.position.series).toEqual([]);
  });

  it("is not marked away when the connection is lost", () => {
    const driven = new Driven();
    driven.poll("110:110:", [message(1n, east)]);
    const lost: PublishOutcome = { kind: "unavailable", scope: "connection", mayBeThere: true };
    for (let time = 0; time < 3; time++) {
      driven.publish(1n, lost);
      driven.wait(settings.awayMs + 1);
    }
    driven.publish(1n, lost);
    expect(driven.relay.position.series).toEqual([]);
  });

  it("is not away for another role", () => {
    const driven = away();
    driven.poll("120:120:", [message(20n, { ...east, role: "billing" })]);
    expect(driven.underWay).toContain(20n);
    expect(driven.relay.position.series.map(({ role }) => role)).toEqual(["shop"]);
  });

  it("only fills the share of its role, if that has many such routes", () => {
    const driven = away({ maxAwayRoutes: 0 });
    expect(driven.relay.position.series).toEqual([]);
    expect(driven.relay.waiting).toBe(3);
  });
});

describe("a message whose stream is missing", () => {
  const missing: PublishOutcome = { kind: "missing", mayBeThere: false, code: "no_stream", message: "none takes it" };
  const { missingStreamMs, probeMaxMs, retryMaxMs, tries, saveMs } = settings;

  it("is retried for some time after it was enqueued, while its route is away, and then refused", () => {
    const driven = new Driven();
    driven.poll("110:110:", [message(1n, { destination: "new" })]);
    driven.publish(1n, missing);
    expect(driven.relay.position.series).toMatchObject([{ role: "shop", route: "new" }]);
    driven.wait(missingStreamMs - 1);
    driven.publish(1n, missing);
    driven.wait(saveMs);
    expect(driven.relay.waiting).toBe(1);
    driven.wait(probeMaxMs);
    for (let time = 1; time <= tries; time++) {
      driven.publish(1n, missing);
      driven.wait(retryMaxMs);
    }
    driven.wait(saveMs);
    expect(driven.relay.waiting).toBe(0);
  });

  it("is refused at once if its role has many such routes", () => {
    const driven = new Driven(start, { maxAwayRoutes: 0, tries: 1 });
    driven.poll("110:110:", [message(1n, { destination: "new" })]);
    driven.publish(1n, missing);
    driven.pollPast("120:120:");
    expect(driven.turn?.dead).toMatchObject([{ message: { id: 1n }, refusal: { code: "no_stream" } }]);
  });
});

describe("a message whose presence in its stream cannot be determined", () => {
  const undecided: PublishOutcome = { kind: "undecided", code: "outcome_unknown", message: "gone" };

  it("becomes a dead letter after some tries, and so does the next one of its destination", () => {
    const driven = new Driven(start, { tries: 2 });
    driven.poll("110:110:", [message(1n)]);
    driven.publish(1n, undecided);
    driven.wait(settings.retryMaxMs);
    driven.publish(1n, undecided);
    driven.pollPast("115:115:");
    expect(driven.turn?.dead).toMatchObject([{ refusal: { code: "outcome_unknown" }, attempts: 2 }]);
    driven.poll("120:120:", [message(2n)]);
    driven.publish(2n, { kind: "refused", code: "nats_failed", message: "no" });
    driven.wait(settings.retryMaxMs);
    expect(driven.underWay).toEqual([2n]);
  });
});

describe("a message that ends its connection", () => {
  const ended: PublishOutcome = { kind: "unavailable", scope: "connection", mayBeThere: true };
  const { suspectPauseMs, trialMs, tries } = settings;

  function endConnection(driven: Driven, { isOutage = false } = {}): void {
    driven.relay.disconnected("the server has closed it (test)");
    for (const id of driven.underWay) driven.publish(id, ended);
    if (isOutage) driven.relay.unreachable();
    driven.relay.connected(driven.now);
    driven.pump();
  }

  /** NATS takes everything for some time, except one message, at which it ends the connection. */
  function run(driven: Driven, culprit: bigint, ms: number, { isOutage = false } = {}) {
    const published: bigint[] = [];
    let endings = 0;
    for (const until = driven.now + ms; driven.now < until; driven.wait(10)) {
      const { underWay } = driven;
      // The server reads one message after the other.
      const before = underWay.includes(culprit) ? underWay.slice(0, underWay.indexOf(culprit)) : underWay;
      for (const id of before) driven.publish(id);
      published.push(...before);
      if (!driven.underWay.includes(culprit)) continue;
      endings += 1;
      endConnection(driven, { isOutage });
    }
    return { published, endings };
  }

  it("becomes a dead letter after some tries, and the others are published before its second", () => {
    const driven = new Driven();
    driven.poll("110:110:", messages(1, 8));
    driven.publish(1n);
    endConnection(driven);
    expect(driven.underWay).toEqual([2n]);
    const { published, endings } = run(driven, 6n, 2 * suspectPauseMs);
    expect(published).toEqual([2n, 3n, 4n, 5n, 7n, 8n]);
    expect(endings).toBe(3);
    driven.wait(30);
    expect(driven.underWay).toEqual([6n]);
    expect(run(driven, 6n, 3 * tries * suspectPauseMs)).toEqual({ published: [], endings: tries - 1 });
    expect(driven.dead).toMatchObject([
      {
        message: { id: 6n },
        refusal: { code: "nats_failed", message: expect.stringContaining("(test)") },
        attempts: tries,
      },
    ]);
    expect(driven.relay.waiting).toBe(0);
  });

  it("is retried for as long as NATS cannot be reached afterwards, and the others are published", () => {
    const driven = new Driven();
    driven.poll("110:110:", messages(1, 8));
    const { published, endings } = run(driven, 6n, 6 * tries * suspectPauseMs, { isOutage: true });
    expect(published).toHaveLength(7);
    expect(endings).toBeGreaterThan(2 * tries);
    expect(driven.dead).toEqual([]);
    expect(driven.relay.waiting).toBe(1);
  });

  it("has no try if the connection ends long after it was sent, or while others are tried, too", () => {
    const driven = new Driven();
    driven.poll("110:110:", messages(1, 3));
    endConnection(driven);
    for (let time = 0; time < 3 * tries; time++) {
      expect(driven.underWay).toEqual([1n]);
      driven.wait(trialMs);
      expect(driven.underWay).toEqual([1n, 2n, 3n]);
      endConnection(driven);
    }
    expect(driven.dead).toEqual([]);
    expect(driven.relay.waiting).toBe(3);
  });

  it("is in flight alone: the number of others doubles with each answer", () => {
    const driven = new Driven();
    driven.poll("110:110:", messages(1, 8));
    endConnection(driven);
    const together: number[] = [];
    while (driven.steps.length > 0) {
      together.push(driven.steps.length);
      for (const id of driven.underWay) driven.publish(id);
    }
    expect(together).toEqual([1, 2, 4, 1]);
  });

  it("holds up others only for a while if it has no answer", () => {
    const driven = new Driven();
    driven.poll("110:110:", [message(1n), message(2n), message(3n)]);
    endConnection(driven);
    driven.poll("120:120:", [message(20n, { role: "billing" })]);
    expect(driven.underWay).toEqual([1n]);
    driven.wait(trialMs - 1);
    expect(driven.underWay).toEqual([1n]);
    driven.wait(1);
    expect(driven.underWay).toEqual([1n, 2n, 3n]);
    driven.publish(2n);
    driven.publish(3n);
    expect(driven.underWay).toEqual([1n, 20n]);
  });

  it("makes its role pause, and no other", () => {
    const driven = new Driven();
    driven.poll("110:110:", [message(1n)]);
    endConnection(driven);
    endConnection(driven);
    driven.wait(10);
    driven.poll(driven.read!.from, [message(20n), message(21n, { role: "billing" })]);
    expect(driven.underWay).toEqual([21n]);
    driven.publish(21n);
    driven.wait(suspectPauseMs);
    expect(driven.underWay).toEqual([20n]);
    driven.publish(20n);
    driven.wait(suspectPauseMs);
    expect(driven.underWay).toEqual([1n]);
  });
});

describe("a refused message", () => {
  const refused: PublishOutcome = { kind: "refused", code: "no_stream", message: "no stream" };

  it("is retried several times before it becomes a dead letter", () => {
    const driven = new Driven();
    driven.poll("110:110:", [message(1n)]);
    for (let time = 1; time <= settings.tries; time++) {
      driven.publish(1n, refused);
      driven.wait(settings.retryMaxMs);
    }
    driven.wait(settings.saveMs);
    expect(driven.relay.waiting).toBe(0);
  });

  it("has one try once a role has had many refusals in a row, until a message is accepted", () => {
    const driven = new Driven();
    const many = messages(1, settings.maxRefused).map((each) => ({ ...each, destination: `missing ${each.id}` }));
    driven.poll("110:110:", many);
    for (const { id } of many) driven.publish(id, refused);
    driven.pollPast("110:110:");
    driven.pollPast("110:110:");
    expect(driven.relay.waiting).toBe(settings.maxRefused - 1);
    driven.poll("120:120:", [message(50n, { destination: "orders" }), message(51n, { destination: "gone" })]);
    driven.publish(50n);
    driven.publish(51n, refused);
    driven.wait(settings.retryMaxMs);
    expect(driven.underWay).toContain(51n);
  });

  it("becomes a dead letter without a publish, in the order of its lane, if its refusal is known before", () => {
    const driven = new Driven();
    const refusal = { code: "payload_too_large", message: "too large" };
    driven.poll("110:110:", [
      message(1n, { lane: "k" }),
      message(2n, { lane: "k", refusal }),
      message(3n, { lane: "k" }),
    ]);
    expect(driven.underWay).toEqual([1n]);
    driven.publish(1n);
    expect(driven.underWay).toEqual([]);
    driven.pollPast("120:120:");
    expect(driven.turn?.dead).toMatchObject([{ message: { id: 2n }, refusal, attempts: 1 }]);
    driven.pollPast("130:130:");
    expect(driven.underWay).toEqual([3n]);
  });
});
