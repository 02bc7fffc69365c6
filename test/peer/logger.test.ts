/**
 * What no call can throw goes to the logger that is given, and nowhere else.
 */
import { expect, it, vi } from "vitest";
import { Log } from "./support/log.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

it("hears with details why a peer ends, and standard output and error stay silent", async () => {
  const written = [vi.spyOn(process.stdout, "write"), vi.spyOn(process.stderr, "write")];
  const lines = new Log<{ level: string; details: object; message: string }>();
  const take =
    (level: string) =>
    (details: object, message: string): void =>
      lines.push({ level, details, message });
  const logger = { debug: take("debug"), info: take("info"), warn: take("warn"), error: take("error") };
  const a = await world.started("a-1", { logger });
  const b = await world.started("b-1");
  await a.sendTo("b", "x");
  await b.stop();
  await world.query("UPDATE hawser.peers SET epoch = epoch + 1 WHERE name = 'a-1'");
  await a.sendTo("b", "y").catch(() => undefined);
  expect(await lines.find(({ level }) => level === "error")).toMatchObject({
    details: { name: "a-1" },
    message: expect.stringContaining('"a-1"'),
  });
  for (const spy of written) {
    expect(spy.mock.calls).toEqual([]);
    spy.mockRestore();
  }
});
