/**
 * The address to listen on: what is wrong with it shows when the peer starts.
 */
import { expect, it } from "vitest";
import { failure } from "./support/errors.js";
import { peerWorld } from "./support/world.js";

it.each([
  "nonsense",
  "localhost",
  "127.0.0.1",
  "127.0.0.1:",
  ":4100",
  "127.0.0.1:65536",
  "::1:4100",
  "http://127.0.0.1:1",
  " ",
])(
  "a listen string that is no address, as %j, is bind_failed at the start, and leaves nothing behind",
  async (listen) => {
    await using world = await peerWorld();
    const a = world.peer("a-1", { listen });
    const error = await failure("bind_failed", a.run());
    expect(error.message).toContain(listen);
    expect(error.message).toContain("write host:port");
    expect(await world.query("SELECT 1 FROM hawser.topic_addr")).toEqual([]);
    // It may be tried again, and fails again; the name is free for one who knows better.
    await failure("bind_failed", a.run());
    await world.peer("a-1", { nameWaitMs: 0 }).run();
  },
);

it("a host name is an address to listen on, and to publish", async () => {
  await using world = await peerWorld();
  const b = await world.started("b-1", { listen: "localhost:0", advertise: "localhost:0" });
  expect(b.boundListenAddress).toMatch(/^(127\.0\.0\.1|\[::1\]):\d+$/);
  expect(b.publishedAddress).toMatch(/^localhost:\d+$/);
  const a = await world.started("a-1");
  expect((await a.sendTo("b", "x")).outcome).toBe("delivered");
});
