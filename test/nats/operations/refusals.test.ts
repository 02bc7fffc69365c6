import { describe, expect, it } from "vitest";
import { refusedSubject } from "../../../src/nats/connections/connection-events.js";
import { Refusals } from "../../../src/nats/connections/operations/index.js";
import { maxWatchedSubjects, type Violation } from "../../../src/nats/connections/operations/refusals.js";
import { startNatsServer } from "../../support/nats-server.js";
import { bytesOf, operationsOf, timeoutMs } from "./operations-of.js";

const violationOf = (subject: string, message = "refused"): Violation => ({ subject, message });

describe("Refusals", () => {
  it("tells each session that published to the subject, once", () => {
    const refusals = new Refusals<string>();
    refusals.published("one", "a");
    refusals.published("two", "a");
    refusals.published("three", "b");
    refusals.refused(violationOf("a"));
    expect(refusals.take("one", "a")).toEqual([violationOf("a")]);
    expect(refusals.take("one", "a")).toEqual([]);
    expect(refusals.take("two")).toEqual([violationOf("a")]);
    expect(refusals.take("two")).toEqual([]);
    expect(refusals.take("three")).toEqual([]);
  });

  it("keeps a violation for the call that asks for its subject", () => {
    const refusals = new Refusals<string>();
    refusals.published("one", "a");
    refusals.published("one", "b");
    refusals.refused(violationOf("a"));
    expect(refusals.take("one", "b")).toEqual([]);
    expect(refusals.take("one", "a", "b")).toEqual([violationOf("a")]);
  });

  it("tells the latest violation of each subject", () => {
    const refusals = new Refusals<string>();
    refusals.published("one", "a");
    refusals.published("one", "b");
    refusals.refused(violationOf("a", "first"));
    refusals.refused(violationOf("a", "second"));
    refusals.refused(violationOf("b"));
    expect(refusals.take("one")).toEqual([violationOf("a", "second"), violationOf("b")]);
  });

  it("does not tell a session of what was refused before it published", () => {
    const refusals = new Refusals<string>();
    refusals.published("one", "a");
    refusals.refused(violationOf("a"));
    refusals.published("two", "a");
    expect(refusals.take("two")).toEqual([]);
  });

  it("watches the subject for answers too", () => {
    const refusals = new Refusals<string>();
    refusals.published("one", "a", "answers");
    refusals.refused(violationOf("answers"));
    expect(refusals.take("one", "a", "answers")).toEqual([violationOf("answers")]);
  });

  it("forgets the subject of longest ago beyond its bound, and rather one without a violation", () => {
    const refusals = new Refusals<string>(3);
    for (const subject of ["a", "b", "c"]) refusals.published("one", subject);
    refusals.refused(violationOf("a"));
    refusals.published("one", "b");
    refusals.published("one", "d");
    for (const subject of ["b", "c", "d"]) refusals.refused(violationOf(subject));
    expect(refusals.take("one").map(({ subject }) => subject)).toEqual(["a", "b", "d"]);
  });

  it("forgets as many subjects as are too long together, and never the latest", () => {
    const refusals = new Refusals<string>(10, 10);
    for (const subject of ["aaaa", "bbbb", "cc"]) refusals.published("one", subject);
    refusals.published("one", "ééé");
    for (const subject of ["aaaa", "bbbb", "cc", "ééé"]) refusals.refused(violationOf(subject));
    expect(refusals.take("one").map(({ subject }) => subject)).toEqual(["cc", "ééé"]);
    refusals.published("one", "a".repeat(20));
    refusals.refused(violationOf("a".repeat(20)));
    expect(refusals.take("one").map(({ subject }) => subject)).toEqual(["a".repeat(20)]);
  });

  it("stays bounded if every subject has a violation", () => {
    const refusals = new Refusals<string>();
    const count = maxWatchedSubjects + 100;
    for (let index = 0; index < count; index++) {
      refusals.published("one", `s${index}`);
      refusals.refused(violationOf(`s${index}`));
    }
    const told = refusals.take("one");
    expect(told.length).toBe(maxWatchedSubjects);
    expect(told.at(-1)).toEqual(violationOf(`s${count - 1}`));
  });

  it("forgets a session that has ended", () => {
    const refusals = new Refusals<string>();
    refusals.published("one", "a");
    refusals.published("two", "a");
    refusals.forget("one");
    refusals.forget("unknown");
    refusals.refused(violationOf("a"));
    expect(refusals.take("one")).toEqual([]);
    expect(refusals.take("two")).toEqual([violationOf("a")]);
  });
});

describe("refusedSubject", () => {
  it.each([
    ['Permissions Violation for Publish to "a.b"', "a.b"],
    ['Permissions Violation for Publish to "a\\"b\\\\c"', 'a"b\\c'],
    ['Permissions Violation for Publish to "a\\u00adb\\U000e0001\\x7f"', "a\u00adb\u{e0001}\u007f"],
    ['Permissions Violation for Publish with Reply of "_R_.x"', "_R_.x"],
  ])("reads the subject of %s", (message, subject) => {
    expect(refusedSubject(message)).toBe(subject);
  });

  it("is undefined for what speaks of no publish", () => {
    expect(refusedSubject('Permissions Violation for Subscription to "a"')).toBeUndefined();
    expect(refusedSubject("Authorization Violation")).toBeUndefined();
  });

  it("reads what is no character, which only a hostile server writes", () => {
    expect(refusedSubject('Permissions Violation for Publish to "a\\Uffffffff"')).toBe("a\ufffd");
  });

  it("reads the subject from the text of the server, which arrives before flush resolves", async () => {
    await using server = await startNatsServer({
      config: `authorization { users: [
        { user: u, password: p, permissions: { publish: { deny: ["denied.>"] } } }
      ] }`,
    });
    await using used = await operationsOf(server.url, { user: "u", pass: "p" });
    const { operations, connection } = used;
    const refusals = new Refusals<number>();
    const status = connection.status();
    const watching = (async () => {
      for await (const event of status) {
        if (event.type !== "error") continue;
        const { message } = event.error;
        const subject = refusedSubject(message);
        if (subject !== undefined) refusals.refused({ subject, message });
      }
    })();
    for (const subject of ["denied.a", 'denied.q"u\\o', "denied.ä漢\u{1f6f3}", "denied.\u00ad\u200b"]) {
      refusals.published(1, subject);
      expect(operations.publish(subject, bytesOf(1), { timeoutMs })).toBeUndefined();
      await operations.flush({ timeoutMs });
      expect(refusals.take(1, subject).map((violation) => violation.subject)).toEqual([subject]);
    }
    await connection.close();
    await watching;
  });
});
