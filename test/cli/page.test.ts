/** `hawser page`, and the page of `hawser serve`. */
import { get } from "node:http";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { hawser, startHawser } from "./support/hawser.js";

let database: TestDatabase;
beforeAll(async () => {
  database = await testDatabase();
});
afterAll(() => database.drop());

/** Status of a page that is asked for by another host name. */
function statusFor(url: string, host: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    get(url, { headers: { host } }, (response) => {
      response.resume();
      resolve(response.statusCode);
    }).on("error", reject);
  });
}

describe("hawser page", () => {
  it("serves the page for names of this machine until a signal ends it", async () => {
    const program = startHawser(
      ["page", "--listen", "127.0.0.1:0", "--path-prefix", "/ops", "--allow-host", "ops.example"],
      {
        databaseUrl: database.url,
      },
    );
    const { url } = JSON.parse(await program.firstLine);
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/ops\/$/);
    expect(await (await fetch(url)).text()).toContain('href="/ops/dead"');
    expect(await statusFor(url, "ops.example")).toBe(200);
    expect(await statusFor(url, "localhost:1234")).toBe(200);
    expect(await statusFor(url, "rebound.example")).toBe(421);
    program.child.kill("SIGTERM");
    expect(await program.ended).toMatchObject({ status: 0, stderr: "" });
  });

  it.each([
    [["--listen", "0.0.0.0:0"], "everyone who reaches it acts as its login"],
    [["--listen", "nowhere"], "nowhere"],
    [["--path-prefix", "ops"], 'pathPrefix "ops": it begins with a slash'],
    [["--refresh", "1ms"], "--refresh"],
    [["--trace-url", "https://example.com"], "{traceId}"],
    [["--descriptors", "/does/not/exist"], "cannot be read"],
  ])("refuses %j", async (args, message) => {
    const { status, stdout, stderr } = await hawser(["page", ...args], { databaseUrl: database.url });
    expect(stdout).toBe("");
    expect(stderr).toContain(message);
    expect(status).not.toBe(0);
  });
});

describe("hawser serve --page", () => {
  it.each([
    [["--page", "127.0.0.1:0"], "--page needs --page-database-url or HAWSER_PAGE_DATABASE_URL"],
    [["--page-database-url", "postgres://a/b"], "--page-database-url goes with --page"],
    [["--page", "0.0.0.0:0", "--page-database-url", "postgres://a/b"], "everyone who reaches it acts as its login"],
  ])("refuses %j", async (args, message) => {
    const { status, stderr } = await hawser(["serve", ...args], { databaseUrl: database.url });
    expect(stderr).toContain(message);
    expect(status).not.toBe(0);
  });
});
