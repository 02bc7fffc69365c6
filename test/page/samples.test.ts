/** The page takes samples for its charts, from its first request on, unless it is told not to. */
import { expect, it } from "vitest";
import { silentLogger } from "../../src/foundation/runtime/index.js";
import { servePage } from "../../src/operating/page/index.js";
import { testDatabase } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { pageClient, viewerOf } from "./support/page-world.js";

it("takes samples with the rights of a viewer, and none if it is told so, or nobody asks for a page", async () => {
  await using database = await testDatabase();
  await using viewer = await viewerOf(database.url);
  const { url: databaseUrl } = viewer;
  const sampled = async (): Promise<boolean> => {
    const [row] = await rowsOf(database.url, "SELECT sampled_at IS NOT NULL AS sampled FROM hawser_data.sampling");
    return row!["sampled"] as boolean;
  };
  // A page that is closed has ended what it had begun.
  await disposing(pageClient({ databaseUrl, samples: false }), (client) => client.get("/style.css"));
  await disposing(pageClient({ databaseUrl }), async () => undefined);
  expect(await sampled()).toBe(false);
  await disposing(pageClient({ databaseUrl }), (client) => client.get("/style.css"));
  expect(await sampled()).toBe(true);
  await onServer(database.url, "UPDATE hawser_data.sampling SET sampled_at = NULL");
  await disposing(await servePage({ databaseUrl, listen: "127.0.0.1:0", logger: silentLogger }), async () => undefined);
  expect(await sampled()).toBe(true);

  async function disposing<Resource extends AsyncDisposable>(
    resource: Resource,
    work: (resource: Resource) => Promise<unknown>,
  ): Promise<void> {
    try {
      await work(resource);
    } finally {
      await resource[Symbol.asyncDispose]();
    }
  }
});
