/**
 * The foreign peer with its wire in Python, where there is one, and the vectors in Python.
 */
import { spawnSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { projectDirectory } from "../support/program.js";
import { describeExchanges } from "./exchanges.js";
import { hasPython, PythonWire, pythonArguments } from "./peer/python-wire.js";

describe.runIf(hasPython())("Python", () => {
  describeExchanges("Python", () => new PythonWire());

  it("finds that the vectors hold for frames and MACs written from the pages", () => {
    const vectors = `${projectDirectory}test/vectors`;
    const { status, stdout, stderr } = spawnSync("python3", pythonArguments("check_vectors.py", vectors), {
      encoding: "utf8",
    });
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout).toMatch(/^\d{3} vectors hold\n$/);
  });
});
