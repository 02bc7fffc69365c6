import { once } from "node:events";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { openStore, type Store, type StoreOptions } from "../../src/jobs-and-peers/peer-store/store.js";
import { leasePollMs } from "../../src/jobs-and-peers/store/leases.js";
import { keptLog } from "../bridge/role/log.js";
import { eventually } from "../support/eventually.js";
import { ManualClock } from "../support/manual-clock.js";
import { startProgram } from "../support/program.js";
import { slowIt } from "../support/slow-it.js";
import { startProxy } from "./support/proxy.js";
import { own, takeOver, terminateHolder, type World, world } from "./support/world.js";

describe("a lease", () => {
  let w: World;
  let tests = 0;
  /** Names that no other test takes. */
  let one: string;
  let two: string;
  const ended: AsyncDisposable[] = [];
  beforeAll(async () => {
    w = await world();
  });
  afterAll(() => w[Symbol.asyncDispose]());
  beforeEach(() => {
    tests += 1;
    [one, two] = [`one-${tests}`, `two-${tests}`];
  });
  afterEach(async () => {
    for (const each of ended.splice(0).reverse()) await each[Symbol.asyncDispose]();
  });

  let stores = 0;
  /** A store with a session of its own, as another process would have it. */
  async function otherProcess(options: StoreOptions = {}): Promise<Store> {
    stores += 1;
    const store = await openStore({ databaseUrl: `${w.url}?application_name=other-${stores}`, ...options });
    ended.push(store);
    return store;
  }

  function session(store: Store, state: "up" | "down"): Promise<void> {
    return new Promise((resolve) => {
      const end = store.on("session", (now) => {
        if (now !== state) return;
        end();
        resolve();
      });
    });
  }

  it("is refused to a twin in another process, and in the same one", async () => {
    const lease = await w.take(one);
    expect(lease).toMatchObject({ name: one, state: "held", isWritable: true, wasClean: true });
    const other = await otherProcess();
    for (const store of [other, w.store]) {
      const twin = store.takeName(one, { waitMs: 0 });
      await expect(twin).rejects.toMatchObject({ code: "name_in_use", retryable: true });
    }
  });

  it("passes to the waiting process when it is released, with a greater epoch and the clean flag", async () => {
    const other = await otherProcess();
    let epoch = 0;
    for (const clean of [true, false, true]) {
      const lease = await w.take(one);
      const waiting = other.takeName(one, { waitMs: 60_000 });
      await lease.release({ clean });
      const next = await waiting;
      expect(next.wasClean).toBe(clean);
      expect(next.epoch).toBeGreaterThan(lease.epoch);
      expect(lease.epoch).toBeGreaterThan(epoch);
      expect(lease.isWritable).toBe(false);
      expect(lease.state).toBe("released");
      epoch = next.epoch;
      await next.release({ clean: true });
    }
  });

  it("is waited for until the time limit, or until the signal is aborted", async () => {
    const clock = new ManualClock();
    const log = keptLog();
    const store = await otherProcess({ clock, logger: log.logger });
    await w.take(one);
    let settled = false;
    const waiting = store.takeName(one, { waitMs: 1000 }).catch((error) => {
      settled = true;
      return error;
    });
    await eventually("the wait is over", () => {
      clock.advance(leasePollMs);
      return settled;
    });
    expect(clock.now()).toBeGreaterThanOrEqual(1000 - leasePollMs);
    await expect(waiting).resolves.toMatchObject({ code: "name_in_use" });
    expect(log.messages("info").filter((message) => message === "waiting for the name")).toHaveLength(1);

    const controller = new AbortController();
    const aborted = store.takeName(one, { waitMs: 1000, signal: controller.signal });
    controller.abort(new Error("enough"));
    await expect(aborted).rejects.toMatchObject({ code: "aborted" });
  });

  it("survives a lost session if no other process took the name", async () => {
    const lease = await w.take(one);
    const states: string[] = [];
    lease.onChange((state) => states.push(state));
    let sessions = 0;
    const unlisten = w.store.on("session", (state) => {
      if (state === "up") sessions += 1;
    });
    const up = session(w.store, "up");
    await terminateHolder(w.operator, one);
    await up;
    expect(states).toEqual(["suspended", "held"]);
    expect(lease.isWritable).toBe(true);
    expect(sessions).toBe(1);
    unlisten();
    const other = await otherProcess();
    await expect(other.takeName(one, { waitMs: 0 })).rejects.toMatchObject({ code: "name_in_use" });
  });

  it("is lost if another process took the name while the session was away", async () => {
    const lease = await w.take(one);
    await using proxied = await startProxy(w.url);
    const away = await openStore({ databaseUrl: proxied.url });
    ended.push(away);
    const mine = await away.takeName(two, { waitMs: 0 });
    const states: string[] = [];
    mine.onChange((state) => states.push(state));
    // What a twin does between two of our sessions.
    const down = session(away, "down");
    const up = session(away, "up");
    await takeOver(w.operator, two);
    proxied.cut();
    await down;
    await up;
    expect(states).toEqual(["suspended", "lost"]);
    expect(mine.isWritable).toBe(false);
    expect(lease.state).toBe("held");
    await w.operator.query("SELECT FROM hawser.release_name($1, false)", [two]);
    await (await w.take(two)).release({ clean: true });
  });

  // With 60 ms, the next session is up only after the name was asked for again.
  it.each([0, 60])(
    "waits while the server, %i ms away, still considers its last session alive, and continues once that has ended",
    async (roundTripMs) => {
      await using proxied = await startProxy(w.url, { roundTripMs });
      const store = await openStore({ databaseUrl: proxied.url });
      ended.push(store);
      const lease = await store.takeName(one, { waitMs: 0 });
      const states: string[] = [];
      lease.onChange((state) => states.push(state));
      const { rows } = await w.operator.query("SELECT pid FROM hawser_data.owners WHERE what = 'peer:' || $1", [one]);
      const up = session(store, "up");
      proxied.cut({ keepServer: true });
      await up;
      expect(states).toEqual(["suspended"]);
      const held = new Promise<void>((resolve) => lease.onChange(() => resolve()));
      await w.operator.query("SELECT pg_terminate_backend($1)", [rows[0].pid]);
      await held;
      expect(states).toEqual(["suspended", "held"]);
    },
  );

  it("passes on at once when its session has ended, even if another session holds its key", async () => {
    const holder = await w.connect();
    await own(holder, one);
    const stranger = await w.connect();
    const { rows } = await w.operator.query("SELECT pid, life FROM hawser_data.owners WHERE what = 'peer:' || $1", [
      one,
    ]);
    const waiting = stranger.query("SELECT pg_advisory_lock($1)", [rows[0].life]);
    expect(await own(w.operator, one)).toBeUndefined();
    await w.operator.query("SELECT pg_terminate_backend($1)", [rows[0].pid]);
    await waiting;
    expect(await w.take(one)).toMatchObject({ state: "held" });
  });

  it("is not kept by a server process that has only its process id", async () => {
    const namesake = await w.connect();
    await w.take(one).then((lease) => lease.release({ clean: true }));
    // As if the process of the last holder had been this one.
    await w.operator.query("UPDATE hawser_data.owners SET pid = $1, life = 17 WHERE what = 'peer:' || $2", [
      (await namesake.query("SELECT pg_backend_pid() AS pid")).rows[0].pid,
      one,
    ]);
    expect(await w.take(one)).toMatchObject({ state: "held" });
  });

  it("stops being writable when the server did not answer for the expiry time, and is again after the next heartbeat", async () => {
    const clock = new ManualClock();
    const store = await otherProcess({ clock });
    const lease = await store.takeName(one, { waitMs: 0 });
    clock.advance(storeConstants.leaseExpiryMs);
    expect(lease.isWritable).toBe(false);
    // The beat that fell due on the way is answered.
    await eventually("the beat has been answered", () => lease.isWritable);
    expect(lease.state).toBe("held");
  });

  it("is lost at the next heartbeat if its epoch in the catalog was raised", async () => {
    const clock = new ManualClock();
    const store = await otherProcess({ clock });
    const lease = await store.takeName(one, { waitMs: 0 });
    const kept = await store.takeName(two, { waitMs: 0 });
    await w.operator.query("UPDATE hawser_peer_data.peers SET epoch = epoch + 1 WHERE name = $1", [one]);
    clock.advance(storeConstants.leaseBeatMs);
    await eventually("the beat has shown it", () => lease.state === "lost");
    expect(kept.state).toBe("held");
    const other = await otherProcess();
    expect(await other.takeName(one, { waitMs: 1000 })).toMatchObject({ state: "held" });
  });

  slowIt("ends a session whose server does not answer, and opens a new one", async () => {
    await using proxied = await startProxy(w.url);
    const clock = new ManualClock();
    const store = await openStore({ databaseUrl: proxied.url, clock });
    ended.push(store);
    const lease = await store.takeName(one, { waitMs: 0 });
    proxied.freeze();
    const frozenAt = clock.now();
    await eventually("the session is given up", () => {
      clock.advance(leasePollMs);
      return lease.state === "suspended";
    });
    expect(clock.now() - frozenAt).toBeLessThan(2 * storeConstants.leaseBeatMs + 20 * leasePollMs);
    proxied.cut();
    await eventually("the lease is held again", () => {
      clock.advance(leasePollMs);
      return lease.state === "held";
    });
    expect(lease.isWritable).toBe(true);
  });

  it("is released within seconds when its process is killed", async () => {
    const holder = startProgram("test/store/programs/hold-name.ts", [one], { env: { HAWSER_DATABASE_URL: w.url } });
    expect(await holder.firstLine).toBe("held");
    await expect(w.take(one)).rejects.toMatchObject({ code: "name_in_use" });
    holder.child.kill("SIGKILL");
    await once(holder.child, "exit");
    const lease = await w.store.takeName(one, { waitMs: 10_000 });
    expect(lease.wasClean).toBe(false);
  });

  it("ends with its store, unclean", async () => {
    const other = await otherProcess();
    await other.takeName(one, { waitMs: 0 });
    await other.close();
    const lease = await w.take(one);
    expect(lease.wasClean).toBe(false);
  });
});
