/** Options of the page. */
import {
  checkPageSettings,
  type PageSettings,
  type PageSettingsInput,
  pageSettingsDefaults,
} from "../../../generated/ts/settings/page.js";
import { checkedSettings, checkOptionNames, invalidArgument, namesOf } from "../../foundation/errors/index.js";
import type { Logger } from "../../foundation/runtime/index.js";
import { linkOptions } from "./html/links.js";

/** Options of `page`. All are optional. */
export interface PageOptions extends PageSettingsInput {
  /**
   * Connection URI of the operator's own login: the page can do what this login may. Default: `HAWSER_DATABASE_URL`,
   * else the PG* variables of libpq.
   */
  readonly databaseUrl?: string | undefined;
  /**
   * Link to a trace, in which `{traceId}` is replaced by the 32 hexadecimal digits of the trace id, such as
   * `https://tempo.example.com/trace/{traceId}`. Default: the trace id is shown without a link.
   */
  readonly traceUrl?: string | undefined;
  /**
   * Link to the log lines about a message, in which `{messageId}` is replaced by its id, such as
   * `https://logs.example.com/search?q={messageId}`. Default: there is no link.
   */
  readonly logUrl?: string | undefined;
  /**
   * Link to the metrics of a topic, in which `{topic}` is replaced by its name, such as
   * `https://grafana.example.com/d/hawser-peer?var-topic={topic}`. Default: there is no link.
   */
  readonly metricsUrl?: string | undefined;
  /** Path of a protobuf image (`buf build -o image.binpb`) with which typed payloads are shown as JSON. */
  readonly descriptors?: string | undefined;
  /**
   * Host names, without port, by which the page may be addressed; others are refused, so that a website whose name
   * resolves to this address cannot read the page. Default: any, because the server in front of the page knows its name.
   */
  readonly hosts?: readonly string[] | undefined;
  /**
   * Key of the token in forms. Processes that answer for one address must share it. Default: random, so that a form is
   * valid only in the process that made it.
   */
  readonly secret?: string | undefined;
  /** Directories with files that options of the NATS server name, for the verdict. Default: none. */
  readonly secretsDirectories?: readonly string[] | undefined;
  /** Logger with pino's methods. Default: none. */
  readonly logger?: Logger | undefined;
}

const optionNames = namesOf<PageOptions>({
  databaseUrl: true,
  traceUrl: true,
  logUrl: true,
  metricsUrl: true,
  descriptors: true,
  hosts: true,
  secret: true,
  secretsDirectories: true,
  logger: true,
  ...pageSettingsDefaults,
});

/** Fewest characters of the option `secret`. */
const leastSecret = 32;

/** Checks the options, and fills in the defaults. @throws HawserError `invalid_argument` */
export function checkPageOptions(options: PageOptions): PageSettings & { readonly pathPrefix: string } {
  const refuse = (why: string): never => {
    throw invalidArgument(why);
  };
  checkOptionNames(options, "a page", optionNames);
  const { pathPrefix = "", ...settings } = checkedSettings(checkPageSettings(options));
  if (pathPrefix !== "" && !/^(\/[\w.~-]+)+$/.test(pathPrefix)) {
    refuse(
      `pathPrefix "${pathPrefix}": it begins with a slash, does not end with one, and has letters, digits and . _ ~ - between slashes; give one such as /ops/hawser`,
    );
  }
  const { secret } = options;
  for (const [name, { placeholder, example }] of Object.entries(linkOptions)) {
    const url = options[name as keyof typeof linkOptions];
    if (url === undefined) continue;
    if (!url.includes(placeholder) || !/^https?:\/\//.test(url) || !URL.canParse(url.replaceAll(placeholder, "0")))
      refuse(`${name} "${url}": it is an http or https URL with ${placeholder}; give one such as ${example}`);
  }
  if (secret !== undefined && secret.length < leastSecret)
    refuse(
      `secret: it has ${secret.length} characters, and needs at least ${leastSecret}; make one by \`openssl rand -base64 32\``,
    );
  return { ...settings, pathPrefix };
}
