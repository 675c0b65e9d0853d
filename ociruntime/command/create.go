package command

var createCommand = command{
	name: "create", args: "CONTAINER", least: 1, most: 1,
	about: "make a container, whose program waits for start",
	flags: func(f *flags) action {
		l := launchFlags(f)
		return func(s *session, args []string) (int, error) {
			c, err := l.create(s, args[0], true)
			if err != nil {
				return 1, err
			}
			return 0, c.Close()
		}
	},
}
