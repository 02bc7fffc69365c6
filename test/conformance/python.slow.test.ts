/**
 * The foreign peer with its wire in Python, where there is one.
 */
import { describe } from "vitest";
import { describeExchanges } from "./exchanges.js";
import { hasPython, PythonWire } from "./peer/python-wire.js";

describe.runIf(hasPython())("Python", () => {
  describeExchanges("Python", () => new PythonWire());
});
