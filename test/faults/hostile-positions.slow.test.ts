/** A hostile pass by each login that has a position: the relay, a worker of the queue, the leader of `hawser serve`, the owner of a name. */
import { it } from "vitest";
import { expectHarmless, positions } from "./support/hostile/positions.js";

it.each(positions)(
  "$name ($role) neither reads what it may not, nor stops messages of others",
  { timeout: 900_000 },
  expectHarmless,
);
