import { expect, it } from "vitest";
import { peerWorld } from "../peer/support/world.js";
import { RawDialler } from "./raw.js";

it("a peer refuses who says nothing for 5 seconds", async () => {
  await using world = await peerWorld();
  const peer = await world.started("orders-1");
  using dialler = await RawDialler.to(peer.localAddress);
  expect(await dialler.rest()).toEqual(["challenge", "ERROR_CODE_HANDSHAKE_TIMEOUT"]);
});
