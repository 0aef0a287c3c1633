// Makes a database of the text on stdin, or changes some of its pages:
//   node sqlite.mjs FILE make|change
import { DatabaseSync } from "node:sqlite";
import { readFileSync } from "node:fs";

const [file, verb] = process.argv.slice(-2);
const text = readFileSync(0);
const rowBytes = 1000; // some rows to a page of 4096 bytes
const rows = Math.floor(text.length / rowBytes);
const row = (i) => text.toString("latin1", i * rowBytes, (i + 1) * rowBytes);

const db = new DatabaseSync(file);
db.exec("PRAGMA page_size=4096; BEGIN");
if (verb === "make") {
  db.exec("CREATE TABLE message (id INTEGER PRIMARY KEY, body TEXT)");
  const insert = db.prepare("INSERT INTO message (body) VALUES (?)");
  for (let i = 0; i < rows; i++) insert.run(row(i));
} else {
  // As many rows as there are given, far apart, elsewhere each time.
  const { n } = db.prepare("SELECT max(id) n FROM message").get();
  const step = Math.floor(n / rows);
  const first = text.readUInt32LE(0) % step;
  const update = db.prepare("UPDATE message SET body = ? WHERE id = ?");
  for (let i = 0; i < rows; i++) update.run(row(i), 1 + first + i * step);
}
db.exec("COMMIT");
db.close();
