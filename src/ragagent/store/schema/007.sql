-- What a key may ask for, where it is not what the configuration says for every key (NULL). 0: without limit.

ALTER TABLE api_keys ADD COLUMN requests_per_minute INTEGER CHECK (requests_per_minute >= 0);
ALTER TABLE api_keys ADD COLUMN tokens_per_minute INTEGER CHECK (tokens_per_minute >= 0);
ALTER TABLE api_keys ADD COLUMN concurrent_answers INTEGER CHECK (concurrent_answers >= 0);
