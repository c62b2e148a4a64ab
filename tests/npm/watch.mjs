// Watches a stream with the npm package `eventsource`; prints a line of JSON for everything that it dispatches.
import { EventSource } from "eventsource";

const source = new EventSource(process.argv[2]);

for (const type of ["open", "error", "ping", "deployment"]) {
  source.addEventListener(type, ({ data, lastEventId }) => {
    console.log(JSON.stringify({ type, data, id: lastEventId, readyState: source.readyState }));
  });
}
