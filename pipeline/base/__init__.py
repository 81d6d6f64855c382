"""What every other folder of pipeline/ uses: errors, paths of results, atomic writing, large arrays, class colours."""
