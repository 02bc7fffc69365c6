import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import { meshSecrets, withCommandDatabase } from "../../src/operating/operate/index.js";
import type { MeshSecrets } from "../../src/operating/operate/mesh-secrets.js";
import { type World, world } from "../store/support/world.js";

describe("rotating the mesh secret", () => {
  let w: World;
  const step = <T>(work: (secrets: MeshSecrets) => Promise<T>, url = w.url): Promise<T> =>
    withCommandDatabase(url, (database) => work(meshSecrets(database)));
  const rotate = () => step((secrets) => secrets.rotateSecret());
  const retire = () => step((secrets) => secrets.retireSecret());
  const refused = (message: RegExp) =>
    expect.objectContaining({ code: "rotation_refused", message: expect.stringMatching(message) });

  beforeAll(async () => {
    w = await world();
  });
  afterAll(() => w[Symbol.asyncDispose]());
  beforeEach(() =>
    w.operator.query(
      "DELETE FROM hawser_peer_data.mesh_secret WHERE id < (SELECT max(id) FROM hawser_peer_data.mesh_secret)",
    ),
  );

  it("adds a new secret, newest first, and keeps the previous one", async () => {
    const [before] = await w.store.secrets();
    const added = await rotate();
    const after = await w.store.secrets();
    expect(after).toHaveLength(2);
    expect(after[1]).toEqual(before);
    expect(after[0]).toHaveLength(32);
    expect(after[0]).not.toEqual(before);
    const listed = await step((secrets) => secrets.meshSecrets());
    expect(listed.map(({ id }) => id)).toEqual([added.id, added.id - 1]);
    expect(added.createdAt).toBeInstanceOf(Date);
    expect(JSON.stringify(listed)).not.toContain(Buffer.from(after[0] as Uint8Array).toString("hex"));
  });

  it("deletes the older one, and never the last", async () => {
    const [first] = await step((secrets) => secrets.meshSecrets());
    await expect(retire()).rejects.toThrow(refused(/there is only one mesh secret.*rotate first/));
    const added = await rotate();
    expect(await retire()).toEqual([first]);
    expect(await step((secrets) => secrets.meshSecrets())).toEqual([added]);
    await expect(retire()).rejects.toThrow(refused(/there is only one/));
  });

  it("refuses a third, also for two concurrent calls", async () => {
    const outcomes = await Promise.allSettled([rotate(), rotate(), rotate()]);
    expect(outcomes.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    for (const outcome of outcomes) {
      if (outcome.status === "rejected") expect(outcome.reason).toEqual(refused(/retire the older one before/));
    }
    await expect(rotate()).rejects.toThrow(refused(/two mesh secrets are already valid/));
    const retirements = await Promise.allSettled([retire(), retire()]);
    expect(retirements.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    expect(await w.store.secrets()).toHaveLength(1);
  });

  it("notifies every open store at once, without the secret", async () => {
    await using store = await openStore({ databaseUrl: w.url });
    const heard = () => new Promise<void>((resolve) => store.on("secrets", () => resolve()));
    const listener = await w.connect();
    const payloads: string[] = [];
    listener.on("notification", ({ payload }) => payloads.push(payload ?? ""));
    await listener.query("LISTEN hawser_mesh_secret");
    const rotated = heard();
    const { id } = await rotate();
    await rotated;
    const retired = heard();
    await retire();
    await retired;
    await listener.query("SELECT 1");
    expect(payloads.map((payload) => JSON.parse(payload))).toEqual([
      { operation: "insert", id },
      { operation: "delete", id: id - 1 },
    ]);
  });
});
