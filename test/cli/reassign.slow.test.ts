import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type PeerWorld, peerWorld, type TestPeer } from "../peer/support/world.js";
import { hawser } from "./support/hawser.js";

describe("hawser peers reassign", () => {
  let w: PeerWorld;
  let round = 0;
  let sender: TestPeer;
  let lost: TestPeer;
  let topic: string;
  let names: { lost: string; heir: string };

  beforeAll(async () => {
    w = await peerWorld({ keepsConnections: true });
  });
  afterAll(() => w[Symbol.asyncDispose]());
  beforeEach(async () => {
    round += 1;
    topic = `topic${round}`;
    names = { lost: `lost-${round}`, heir: `heir-${round}` };
    sender = await w.started(`sender-${round}`);
    lost = await w.started(names.lost, { topic });
    await sender.send(topic, "first");
  });

  const reassign = (...args: string[]) => hawser(["peers", "reassign", ...args], { databaseUrl: w.url });
  /** Recipients of the rows that have left the channels of the lost listener. */
  const recipients = async () =>
    (
      await w.query<{ recipient: string }>("SELECT recipient FROM hawser_data.queue WHERE topic = $1 ORDER BY rank", [
        topic,
      ])
    ).map(({ recipient }) => recipient);
  /** The listener leaves, and two messages are stored for it. */
  const lose = async () => {
    await lost.stop();
    for (const text of ["2", "3"]) expect((await sender.send(topic, text)).outcome).toBe("stored");
  };

  it("hands over what is stored, prints the channels, and the new listener has it at once", async () => {
    await lose();
    const heir = await w.started(names.heir, { topic });
    const { status, stdout, stderr } = await reassign(names.lost, names.heir);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout.split("\n")[0]).toMatch(/^KEY {2}CHANNEL +STORED$/);
    expect(stdout).toContain(`sender-${round}:sender:${names.lost}`);
    expect(stdout).toContain(`Handed 2 stored messages of 1 channel over from "${names.lost}" to "${names.heir}".\n`);
    await heir.received.length(2);
    expect(heir.texts).toEqual(["2", "3"]);
  });

  it("refuses while the old listener runs; forced, that one ends", async () => {
    await w.started(names.heir, { topic });
    const refused = await reassign(names.lost, names.heir);
    expect(refused).toMatchObject({ status: 73, stdout: "" });
    expect(refused.stderr).toContain(`"${names.lost}" is running; stop it first, or force it`);
    const forced = await reassign(names.lost, names.heir, "--force");
    expect(forced.status).toBe(0);
    expect(forced.stderr).toContain(`"${names.lost}" was running; it ends with name_lost.\n`);
    await lost.saw("name_lost");
  });

  it("refuses when the new listener does not serve what is stored; forced, it warns", async () => {
    await lose();
    const heir = await w.started(names.heir);
    const refused = await reassign(names.lost, names.heir);
    expect(refused).toMatchObject({ status: 69, stdout: "" });
    expect(refused.stderr).toContain(`"${names.heir}" does not serve "${topic}"`);
    expect(refused.stderr).toContain("start or subscribe it first, or continue with --force");
    await heir.stop();
    expect((await reassign(names.lost, names.heir)).stderr).toContain("(it is not running)");
    expect(await recipients()).toEqual([]);
    const forced = await reassign(names.lost, names.heir, "--force");
    expect(forced.status).toBe(0);
    expect(forced.stderr).toContain("Warning: ");
    expect(await recipients()).toEqual([`@${names.heir}`, `@${names.heir}`]);
  });

  it("says so when nothing is stored, and warns when the new listener was never seen", async () => {
    await lost.stop();
    const nothing = {
      status: 0,
      stdout: "",
      stderr: `Nothing is stored for "${names.lost}"; nothing was handed over.\n`,
    };
    expect(await reassign(names.lost, names.heir)).toMatchObject(nothing);
    expect((await sender.send(topic, "2")).outcome).toBe("stored");
    const { status, stdout, stderr } = await reassign(names.lost, names.heir, "--force", "--json");
    expect(status).toBe(0);
    expect(stderr).toContain(`Warning: no peer "${names.heir}" was ever started; the messages wait for it.\n`);
    expect(JSON.parse(stdout)).toEqual({
      channelId: expect.any(Number),
      channelName: `sender-${round}:sender:${names.lost}`,
      stored: 1,
    });
  });

  it("hands over what is enqueued for the old listener, unless the new one does not serve its topic", async () => {
    await lost.stop();
    await w.query(
      "SELECT hawser.queue_messages($1, '@' || $2, ARRAY['1'::bytea, '2'], NULL, NULL, 'postgres', NULL, false, 0::smallint)",
      [topic, names.lost],
    );
    const refused = await reassign(names.lost, names.heir);
    expect(refused.status).toBe(69);
    expect(refused.stderr).toContain(
      `"${names.heir}" does not serve "${topic}" (no peer of this name was ever started): messages for that would wait`,
    );
    const heir = await w.started(names.heir, { topic });
    const { stdout, stderr } = await reassign(names.lost, names.heir);
    expect(stderr).toBe(`Nothing is stored for "${names.lost}".\n`);
    expect(stdout).toContain(`Handed 2 enqueued messages over from "${names.lost}" to "${names.heir}".\n`);
    await heir.received.length(2);
    expect(heir.texts.toSorted()).toEqual(["1", "2"]);
  });

  it("refuses names that nobody has, and one that is reserved", async () => {
    const unknown = await reassign("nobody", names.heir);
    expect(unknown.status).toBe(64);
    expect(unknown.stderr).toContain('there is no record of a peer "nobody"');
    await lost.stop();
    const reserved = await reassign(names.lost, "__#retry#1");
    expect(reserved.status).toBe(64);
    expect(reserved.stderr).toContain("which is reserved");
    const same = await reassign(names.lost, names.lost);
    expect(same.status).toBe(64);
    expect((await reassign(names.lost)).stderr).toContain(
      "`hawser peers reassign`: it needs TO: `hawser peers reassign FROM TO`",
    );
  });
});
