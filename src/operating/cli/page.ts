/** `hawser page`: serves the operator's page until it is stopped. */
import { once } from "node:events";
import {
  pageServerSettingsDefaults,
  pageServerSettingsRanges,
  pageSettingsDefaults,
  pageSettingsRanges,
} from "../../../generated/ts/settings/page.js";
import { type PageServerOptions, servePage } from "../page/index.js";
import { type Arguments, defineCommand, flag, type Given, option } from "./command-line.js";
import { LogOutput } from "./log-output.js";
import { awaitStopRequest } from "./long-running.js";
import {
  databaseOption,
  databaseUrlOf,
  descriptorsOption,
  secretsDirectoriesOf,
  secretsDirectoryOption,
} from "./options.js";
import { jsonText, print, printable, styled } from "./output.js";
import { quantityOf, quantityText } from "./quantities.js";

const args = {
  ...databaseOption,
  listen: option("HOST:PORT", pageServerSettingsRanges.listen.about, { default: pageServerSettingsDefaults.listen }),
  "allow-plaintext": flag(
    "Listen at an address that other machines reach: the network is trusted, and everyone in it with the page's rights",
  ),
  "allow-host": option(
    "NAME",
    "Host name by which browsers address the page, such as that of a proxy; may be given several times",
    { multiple: true },
  ),
  "path-prefix": option("PATH", pageSettingsRanges.pathPrefix.about),
  refresh: option(
    "TIME",
    `${pageSettingsRanges.refreshMs.about} From ${quantityText("duration", pageSettingsRanges.refreshMs.min)} to ${quantityText("duration", pageSettingsRanges.refreshMs.max)}. Default ${quantityText("duration", pageSettingsDefaults.refreshMs)}`,
  ),
  "no-samples": flag("Take no samples every 15 seconds for charts"),
  "trace-url": option("URL", "Link to a trace, with {traceId} in place of its id"),
  "log-url": option("URL", "Link to the log lines about a message, with {messageId} in place of its id"),
  "metrics-url": option("URL", "Link to the metrics of a topic, with {topic} in place of its name"),
  ...descriptorsOption,
  ...secretsDirectoryOption,
  json: flag("Print one line of JSON when the page is ready"),
} as const satisfies Arguments;

export const command = defineCommand({
  details: "It can do all that its login may, for everyone who reaches its address, and has no login of its own",
  args,
  run: async (given) => {
    const log = new LogOutput("warn");
    const request = awaitStopRequest();
    try {
      const options = optionsOf(given);
      await using server = await servePage({ ...options, logger: log.logger });
      request.started();
      if (given.json || !process.stdout.isTTY) process.stdout.write(`${jsonText({ url: server.url })}\n`);
      else print(process.stdout, `The page is at ${styled("cyan", printable(server.url))}. Ctrl-C ends it.`);
      if (!request.signal.aborted) await once(request.signal, "abort");
    } finally {
      request.close();
      await log.close();
    }
  },
  examples: [
    [
      "hawser page --database-url postgres://operator@127.0.0.1/app",
      "The page at http://127.0.0.1:9465/, as that login",
    ],
    ["hawser page --path-prefix /ops --allow-host ops.example.com", "Behind a proxy, which lets only operators in"],
    ["hawser page --trace-url 'https://tempo.example.com/trace/{traceId}'", "With links to traces"],
  ],
});

function optionsOf(given: Given<typeof args>): PageServerOptions {
  const hosts = given["allow-host"];
  return {
    databaseUrl: databaseUrlOf(given),
    listen: given.listen,
    allowPlaintext: given["allow-plaintext"],
    ...(hosts !== undefined && { hosts }),
    pathPrefix: given["path-prefix"],
    refreshMs: quantityOf("duration", "--refresh", given.refresh, pageSettingsRanges.refreshMs),
    samples: given["no-samples"] !== true,
    traceUrl: given["trace-url"],
    logUrl: given["log-url"],
    metricsUrl: given["metrics-url"],
    descriptors: given.descriptors,
    secretsDirectories: secretsDirectoriesOf(given),
  };
}
