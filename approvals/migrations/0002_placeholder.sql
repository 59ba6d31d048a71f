-- Stands for helper G's 0002 on this branch alone; drop this file when the branches merge.
SELECT 1;
