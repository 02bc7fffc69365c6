import { expect, it } from "vitest";
import { testDatabase } from "../support/database.js";
import { startHawser } from "./support/hawser.js";

it("hawser serve --page serves the page with the login of the page", async () => {
  await using database = await testDatabase();
  const listen = ["--listen", "127.0.0.1:0", "--allow-plaintext", "--log-level", "silent"];
  const program = startHawser(["serve", ...listen, "--page", "127.0.0.1:0"], {
    databaseUrl: database.url,
    env: { HAWSER_PAGE_DATABASE_URL: `${database.url}?application_name=page` },
  });
  const { pageUrl } = JSON.parse(await program.firstLine);
  expect((await fetch(`${pageUrl}dead`)).status).toBe(200);
  program.child.kill("SIGTERM");
  expect(await program.ended).toMatchObject({ status: 0 });
});
