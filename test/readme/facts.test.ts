/**
 * Facts of the code that the pages repeat: they are still true.
 */

import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { load } from "js-yaml";
import { describe, expect, it } from "vitest";
import { patterns } from "../../examples/patterns.js";
import { bridgeConstants, serveSettingsDefaults } from "../../generated/ts/settings/nats.js";
import {
  handlerSettingsDefaults,
  peerSettingsDefaults,
  protocolConstants,
  storeConstants,
  tuningSettingsDefaults,
} from "../../generated/ts/settings/peer.js";
import { tiers } from "../../scripts/layers/rules.js";
import { queueDefaults } from "../../src/bridge/queue/steps.js";
import { requestQueueDefaults } from "../../src/bridge/responders/responder-service.js";
import { patroniTimeoutMs } from "../../src/bridge/role/patroni.js";
import { Peer } from "../../src/peer/index.js";
import { maxPendingHandshakes } from "../../src/transport/listen.js";
import { channels } from "../simulator/channels/simulation.js";
import { projectDirectory } from "../support/program.js";
import { pages, readPage as read } from "./pages.js";

/** As one line each paragraph, so that a line break within a phrase does not matter. */
const readPhrases = (path: string) => read(path).replace(/(\S)\n\s*(?=\S)/g, "$1 ");

const isThere = (path: string) => existsSync(join(projectDirectory, path));

/** Anchors of a page: its headings in the form of GitHub and others. */
function anchorsOf(markdown: string): Set<string> {
  const headings = [...markdown.replace(/^```.*?^```/gms, "").matchAll(/^#+ (.*)$/gm)].map(([, heading]) => heading!);
  const words = headings.map((heading) => heading.replace(/\[([^\]]*)\]\([^)]*\)/g, "$1").toLowerCase());
  return new Set(words.map((each) => each.replace(/[^\p{L}\p{N}_ -]/gu, "").replaceAll(" ", "-")));
}

describe("the pages", () => {
  it.each(pages)("%s links to nothing that is missing", (page) => {
    const targets = [...read(page).matchAll(/\]\(([^)#\s]+)[^)]*\)/g)].map(([, target]) => target!);
    const missing = targets.filter((target) => !target.includes("://") && !isThere(join(dirname(page), target)));
    expect(missing).toEqual([]);
  });

  it.each(pages)("%s names headings that there are", (page) => {
    const targets = [...read(page).matchAll(/\]\(([^)\s]*#[^)\s]+)\)/g)].map(([, target]) => target!);
    const missing = targets.filter((target) => {
      const [path = "", anchor = ""] = target.split("#");
      const file = path === "" ? page : join(dirname(page), path);
      return !target.includes("://") && file.endsWith(".md") && !anchorsOf(read(file)).has(anchor);
    });
    expect(missing).toEqual([]);
  });

  it.each(pages)("%s names only files of src/ that there are", (page) => {
    const named = [...read(page).matchAll(/`(src\/[\w./-]+)`/g)].map(([, path]) => path!);
    expect(named.filter((path) => !isThere(path))).toEqual([]);
  });

  it("list all decisions", () => {
    const files = readdirSync(join(projectDirectory, "docs/decisions")).filter((file) => file !== "README.md");
    const listed = [...read("docs/decisions/README.md").matchAll(/^- \[[^\]]+\]\(([^)]+)\)/gm)].map(([, file]) => file);
    expect(listed.sort()).toEqual(files.sort());
  });
});

it("the pages name the versions of the NATS client that Hawser has", () => {
  const { dependencies } = JSON.parse(read("package.json")) as { dependencies: Record<string, string> };
  const named = ["docs/typed.md", "docs/rpc.md"].flatMap((page) =>
    [...read(page).matchAll(/npm i [^`]*`/g)].flatMap(([command]) => command.match(/@nats-io\/[^ `]+/g) ?? []),
  );
  expect(named.length).toBeGreaterThan(2);
  for (const each of named) {
    const name = each.slice(0, each.indexOf("@", 1));
    expect(each).toBe(`${name}@${dependencies[name]}`);
  }
});

describe("the README", () => {
  const text = readPhrases("README.md");

  it("has at most 1,500 words", () => {
    expect(text.split(/\s+/).length).toBeLessThanOrEqual(1500);
  });

  it("asks for the Node that package.json asks for", () => {
    const { engines } = JSON.parse(read("package.json")) as { engines: { node: string } };
    expect(text).toContain(`Node ${engines.node.replace(">=", "")} or newer`);
  });

  it("leads to every page of docs/", () => {
    const linked = new Set([...text.matchAll(/\]\((docs\/[^)#\s]+)/g)].map(([, target]) => target!));
    expect(pages.filter((page) => /^docs\/[^/]+$/.test(page) && !linked.has(page))).toEqual([]);
  });

  it("names commands that .ci/run calls", () => {
    const steps = [...read(".ci/run").matchAll(/^step (npm .*)$/gm)].map(([, command]) => command!);
    const blocks = [...read("README.md").matchAll(/^```sh in CI\n(.*?)^```/gms)].map(([, block]) => block!);
    const lines = blocks.flatMap((block) => block.trim().split("\n")).map((line) => line.replace(/ *#.*$/, ""));
    expect(lines).toEqual(["npm ci && npm run demo", "npm ci && npm test"]);
    expect(steps).toEqual(expect.arrayContaining(lines.flatMap((line) => line.split(" && "))));
  });
});

it("the hosted CI only calls .ci/run", () => {
  const { jobs } = load(read(".github/workflows/ci.yml")) as { jobs: Record<string, { steps: { run?: string }[] }> };
  const commands = Object.values(jobs).flatMap(({ steps }) => steps.flatMap(({ run }) => run ?? []));
  expect(commands).toEqual([".ci/run"]);
});

describe("docs/getting-started.md", () => {
  it("names the tarball that npm pack makes", () => {
    const { name, version } = JSON.parse(read("package.json")) as { name: string; version: string };
    expect(read("docs/getting-started.md")).toContain(`${name}-${version}.tgz`);
  });
});

describe("docs/peers.md", () => {
  it("gives the numbers of the spec", () => {
    const text = readPhrases("docs/peers.md");
    expect(text).toContain(
      `a pool of up to ${peerSettingsDefaults.poolSize} connections (change it with \`poolSize\`)`,
    );
    const { maxHandshakeFrameBytes, handshakeTimeoutMs } = protocolConstants;
    expect(text).toContain(
      `${maxHandshakeFrameBytes / 1024} KiB and ${handshakeTimeoutMs / 1000} seconds per handshake, ` +
        `and ${maxPendingHandshakes} handshakes at a time`,
    );
  });
});

describe("test/simulator/README.md", () => {
  const text = read("test/simulator/README.md");

  it("explains every mutant, and none that is gone", () => {
    const rows = [...text.slice(text.indexOf("| mutant |")).matchAll(/^\| (.+?) \|/gm)].map(([, name]) => name);
    expect(rows.slice(1)).toEqual(channels.mutants.map(({ name }) => name));
  });
});

describe("docs/delivery.md", () => {
  const text = read("docs/delivery.md");

  it("names settings that exist", () => {
    const known = new Set(
      Object.keys({
        ...peerSettingsDefaults,
        ...tuningSettingsDefaults,
        ...handlerSettingsDefaults,
        ...protocolConstants,
        ...storeConstants,
      }),
    );
    const named = [...text.matchAll(/`(\w+(?:Ms|Rows|Bytes|Messages))`/g)].map(([, name]) => name!);
    const isMethod = (name: string) => name in Peer.prototype;
    expect(named.filter((name) => !known.has(name) && !isMethod(name))).toEqual([]);
  });
});

describe("docs/nats-to-sql.md", () => {
  const text = readPhrases("docs/nats-to-sql.md");

  it("gives the numbers of the spec", () => {
    const { subscriberSessions, subscriberTimeoutMs, responderSessions, bufferBytes, takeoverBufferMs } =
      serveSettingsDefaults;
    const { maxBatchMessages, maxBatchBytes } = queueDefaults;
    const { maxQueuedRequests, maxQueuedRequestBytes } = requestQueueDefaults;
    const { leaderExpiryMs } = bridgeConstants;
    const mebibyte = 1024 * 1024;
    for (const phrase of [
      `up to ${maxBatchMessages.toLocaleString("en")} messages or ${maxBatchBytes / mebibyte} MiB`,
      `\`--subscriber-sessions\` (${subscriberSessions})`,
      `\`--subscriber-timeout\`, ${subscriberTimeoutMs / 1000} s`,
      `\`--responder-sessions\` (${responderSessions})`,
      `\`--buffer\`** (${bufferBytes / mebibyte} MiB)`,
      `\`--tune takeoverBufferMs\` (${takeoverBufferMs / 1000} s)`,
      `silent for ${leaderExpiryMs / 1000} seconds`,
      `${maxQueuedRequests.toLocaleString("en")}, or ${maxQueuedRequestBytes / mebibyte} MiB, for a responder`,
      `within ${patroniTimeoutMs / 1000} seconds`,
    ]) {
      expect(text).toContain(phrase);
    }
  });
});

describe.each(["docs/nats-to-sql.md", "docs/operations.md"])("%s", (page) => {
  it("quotes lines of the log that are written", () => {
    const sources = readdirSync(join(projectDirectory, "src"), { recursive: true, encoding: "utf8" });
    const code = sources.filter((file) => file.endsWith(".ts")).map((file) => read(join("src", file)));
    const quoted = [...read(page).matchAll(/(?:^\| |log: )`([a-z][a-z]+ [A-Za-z ,']+)(?::[^`]*)?`/gm)].map(
      ([, line]) => line!,
    );
    expect(quoted.length).toBeGreaterThan(2);
    expect(quoted.filter((line) => !code.some((text) => text.includes(line)))).toEqual([]);
  });
});

it("examples/README.md lists all patterns, and none that is gone", () => {
  const listed = [...read("examples/README.md").matchAll(/^\| \[([\w-]+)\]\(\1\.ts\)/gm)].map(([, name]) => name);
  expect(listed).toEqual(Object.keys(patterns));
});

describe("CONTRIBUTING.md", () => {
  it("has at most 2,500 words", () => {
    expect(read("CONTRIBUTING.md").split(/\s+/).length).toBeLessThanOrEqual(2500);
  });

  it("names every command of package.json", () => {
    const { scripts } = JSON.parse(read("package.json")) as { scripts: Record<string, string> };
    const text = read("CONTRIBUTING.md");
    for (const name of Object.keys(scripts)) {
      expect(text).toMatch(name === "test" ? /`npm test`/ : new RegExp(`\`npm run (-s )?${name}[\` ]`));
    }
  });

  it("gives the layers as they are checked", () => {
    expect(readPhrases("CONTRIBUTING.md")).toContain(tiers.map((tier) => tier.join(", ")).join(" → "));
  });

  it("names folders of src that exist, and all of them", () => {
    const named = [...read("CONTRIBUTING.md").matchAll(/^\| `src\/([\w-]+)`/gm)].map(([, name]) => name);
    expect(named.sort()).toEqual(readdirSync(join(projectDirectory, "src")).sort());
  });
});
