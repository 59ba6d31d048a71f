-- Stands for the web sessions' 0003 on this branch alone; drop this file when the branches merge.
SELECT 1;
