-- How a snapshot's memory is saved, and what was expected of it.
ALTER TABLE snapshot ADD COLUMN saving TEXT;
