/** A hostile pass by the relay. `hostile-positions.slow.test.ts` has that of each login with a position. */
import { it } from "vitest";
import { longTest } from "../support/limits.js";
import { expectHarmless, positions } from "./support/hostile/positions.js";

const relay = positions.filter(({ name }) => name === "the relay");

it.each(relay)("$name ($role) neither reads what it may not, nor stops messages of others", longTest, expectHarmless);
