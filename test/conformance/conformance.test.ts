/**
 * A peer that shares no code with this project talks to its peers: by the pages of docs/, the vectors and the generated
 * descriptors. Its wire half runs in Node here, and in Python in python.slow.test.ts.
 */
import { readdirSync, readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { projectDirectory } from "../support/program.js";
import { describeExchanges } from "./exchanges.js";
import { NodeWire } from "./peer/node-wire.js";

describeExchanges("Node", () => new NodeWire());

it("the foreign peer has nothing of this project's own code", () => {
  const directory = `${projectDirectory}test/conformance/peer`;
  const imported = readdirSync(directory).flatMap((file) =>
    [...readFileSync(`${directory}/${file}`, "utf8").matchAll(/from "(.+)"/g)].map(([, path]) => path!),
  );
  const foreignPaths = imported.filter((path) => !path.startsWith("node:") && !path.startsWith("./"));
  expect([...new Set(foreignPaths)].sort()).toEqual([
    "../../../generated/ts/es/hawser/peer/v1/frames_pb.js",
    "@bufbuild/protobuf",
    "pg",
  ]);
});
