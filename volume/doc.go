// Package volume keeps directories that outlive the containers that use them.
//
// Above it stand engine and cri; below it the file system. A volume is a
// directory: its content in NAME/_data, what is known of it in NAME/volume.json,
// and nothing beside that, so that what a killed daemon leaves is whole or is no
// volume. Who uses a volume is the owner's to know.
package volume
